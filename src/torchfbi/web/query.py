"""What a request asks, out of its address: each part once, known, and not too long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NoReturn

from starlette.datastructures import QueryParams

from torchfbi.errors import SettingsError
from torchfbi.method.settings import Settings
from torchfbi.web.desk import Question
from torchfbi.web.service import Service

PARTS = ("model", "target", "preset", "settings", "fit")
"""The parts of a question."""

LONGEST = {"settings": 4000}
SHORT = 200
"""Characters of all others."""


def parts(query: QueryParams, *known: str) -> dict[str, str]:
    """The parameters of an address.

    Raises:
        SettingsError: an unknown one, one that is given twice, or one that is too long.
    """
    given: dict[str, str] = {}
    for name, value in query.multi_items():
        if name not in known:
            raise SettingsError(
                f"unknown parameter {name[:SHORT]}: choose from {', '.join(known)}."
            )
        if name in given:
            raise SettingsError(f"{name} is given twice.")
        if len(value) > (most := LONGEST.get(name, SHORT)):
            raise SettingsError(f"{name} has {len(value)} characters: give at most {most}.")
        given[name] = value
    return given


def question(service: Service, token: str, asked: Mapping[str, str]) -> Question:
    """What ``asked`` says about the photo of a token.

    Raises:
        LimitError: the photo is no longer kept.
        ModelError: there is no such network here, or no longer.
        SettingsError: no such preset or setting.
    """
    model = asked.get("model") or next(iter(service.networks))
    source = service.source(model)
    target = asked.get("target", "").strip() or None
    chosen, photo = settings(asked), service.photos.get(token)
    return Question(token, photo, model, target, chosen, source, bool(asked.get("fit")))


def settings(asked: Mapping[str, str]) -> Settings:
    """The ``preset`` with what differs from it, ``settings``: a JSON object such as ``{"k": 0.5}``.

    Raises:
        SettingsError: it is none, or there is no such preset, setting or value.
    """
    try:
        found = json.loads(asked.get("settings") or "{}", parse_constant=_refuse)
        json.dumps(found, ensure_ascii=False).encode()  # half a pair of surrogates is no text
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"settings are no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise SettingsError('settings are an object, such as {"k": 0.5}.')
    known = {field.name for field in fields(Settings)} - {"preset"}
    if unknown := sorted(found.keys() - known):
        raise SettingsError(
            f"unknown setting {', '.join(unknown)}: choose from {', '.join(sorted(known))}."
        )
    return Settings.from_preset(asked.get("preset") or "contrast", **found)


def number(name: str, text: str) -> float:
    """A number.

    Raises:
        SettingsError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: write a number, such as 0.5.") from None


def preprocessing(asked: Mapping[str, str]) -> dict[str, Any]:
    """What is said about a network's inputs, as ``Model.with_preprocess`` takes it.

    Raises:
        SettingsError: a part of ``mean`` or ``std`` is no number.
    """
    scaling = {
        name: [number(name, part) for part in _separated(asked[name])]
        for name in ("mean", "std")
        if asked.get(name)
    }
    return {
        **scaling,
        "channels": "BGR" if asked.get("bgr") else None,
        "fit": "stretch" if asked.get("stretch") else None,
    }


def taus(text: str) -> list[float | None]:
    """Thresholds with commas or spaces between them; ``none`` keeps everything.

    Raises:
        SettingsError: one is no number.
    """
    return [None if part == "none" else number("tau", part) for part in _separated(text)]


def _separated(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def changes(settings: Settings) -> dict[str, Any]:
    """What was changed about the preset, as plain JSON values by field."""
    own, preset = settings.to_dict(), Settings.from_preset(settings.preset).to_dict()
    return {name: own[name] for name in own if own[name] != preset[name]}
