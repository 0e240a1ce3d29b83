"""Every setting as a control of the page, made from the fields of ``Settings`` and their docs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import gradio as gr

from torchfbi.errors import SettingsError
from torchfbi.settings import Settings, Threshold, ThresholdKind

NONE = "none"
_HINTS = get_type_hints(Settings)
_NAMES = [field.name for field in fields(Settings) if field.name != "preset"]


def helps() -> dict[str, str]:
    """What the docstring of ``Settings`` says on each field, in its first sentence."""
    text = str(Settings.__doc__).partition("Args:")[2].partition("Raises:")[0]
    found = {}
    for name, body in re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w|\Z)", text, re.M | re.S):
        plain = re.sub(r"\s+", " ", body).replace("``", "").replace("\\|", "|").strip()
        sentence = re.split(r"\.(?: |$)", plain)[0]
        found[name] = f"{sentence[0].upper()}{sentence[1:]}."
    return found


class Knobs:
    """The controls, and how their values become ``Settings``.

    A threshold has two: its kind and its number. All others have one.
    """

    def __init__(self, settings: Settings) -> None:
        said, plain = helps(), settings.to_dict()
        self.controls: list[gr.components.Component] = []
        for name in _NAMES:
            if _is_threshold(name):
                self.controls += _threshold(name, getattr(settings, name), said[name])
            else:
                self.controls.append(_control(name, plain[name], said[name]))

    @staticmethod
    def values(settings: Settings) -> list[Any]:
        """What the controls show for these settings."""
        shown: list[Any] = []
        for name in _NAMES:
            value = getattr(settings, name)
            if _is_threshold(name):
                shown += [NONE, None] if value is None else [value.kind, value.value]
            elif name == "layers":
                shown.append(", ".join(value))
            else:
                shown.append(value)
        return shown

    @staticmethod
    def settings(preset: str, shown: Sequence[Any]) -> Settings:
        """The settings that the controls show.

        Raises:
            SettingsError: a number is missing or out of its range.
        """
        left = list(shown)
        changes: dict[str, Any] = {}
        for name in _NAMES:
            value = left.pop(0)
            if _is_threshold(name):
                number = left.pop(0)
                if value != NONE and number is None:
                    raise SettingsError(f"{_words(name)}: {value} needs a number.")
                value = None if value == NONE else Threshold(value, number)
            elif name == "layers":
                value = tuple(part.strip() for part in value.split(",") if part.strip())
            changes[name] = value
        return Settings.from_preset(preset, **changes)


def changes(settings: Settings) -> dict[str, Any]:
    """What was changed about the preset, by field."""
    preset = Settings.from_preset(settings.preset)
    return {
        name: getattr(settings, name)
        for name in _NAMES
        if getattr(settings, name) != getattr(preset, name)
    }


def _words(name: str) -> str:
    return name.replace("_", " ")


def _is_threshold(name: str) -> bool:
    return Threshold in get_args(_HINTS[name])


def _threshold(name: str, threshold: Threshold | None, info: str) -> list[gr.components.Component]:
    kinds = [NONE, *get_args(ThresholdKind)]
    kind, number = (NONE, None) if threshold is None else (threshold.kind, threshold.value)
    return [
        gr.Dropdown(kinds, value=kind, label=_words(name), info=info),
        gr.Number(
            number,
            label=f"{_words(name)}: number",
            info="absolute: τ itself, mean: in means, 0 or more; all others: a share.",
        ),
    ]


def _control(name: str, value: Any, info: str) -> gr.components.Component:
    hint = _HINTS[name]
    shown: dict[str, Any] = {"label": _words(name), "info": info, "value": value}
    if get_origin(hint) is Literal:
        return gr.Dropdown(list(get_args(hint)), **shown)
    if hint is bool:
        return gr.Checkbox(**shown)
    if name == "layers":
        return gr.Textbox(**{**shown, "value": ", ".join(value)}, max_lines=1)
    if type(None) in get_args(hint):  # only a number can be left empty
        return gr.Number(**{**shown, "info": f"{info} Empty: none."})
    if name == "k":
        return gr.Slider(0.01, 1.0, step=0.01, **shown)
    return gr.Number(**shown)
