"""What there is to choose from on the page: networks, presets, settings, methods, examples."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torchfbi.evaluate.peers import METHODS
from torchfbi.method.settings import PRESETS, Settings
from torchfbi.models.conventions import USUAL
from torchfbi.models.images import Photo
from torchfbi.web.examples import NAMES
from torchfbi.web.pictures import photo_uri
from torchfbi.web.service import PEERS, Service

WORDS = {
    "contrast": ("Focused", "what speaks for this class and not for its rivals"),
    "paper": ("Outlines", "the method as it was published: all that the class responds to"),
    "plain": ("Raw", "every pixel's influence, nothing selected"),
}
"""What the presets are called on the page."""

CHOSEN = ("fbi", "fbi-paper", "guided-backprop", "grad-cam")
"""The methods that are compared unless others are chosen."""

_HINTS = get_type_hints(Settings)


def configuration(service: Service, examples: dict[str, Photo]) -> dict[str, Any]:
    """All of it, as plain JSON values."""
    limits = service.limits
    return {
        "networks": list(service.networks),
        "presets": [
            {
                "name": name,
                "word": word,
                "help": said,
                "settings": Settings.from_preset(name).to_dict(),
            }
            for name, (word, said) in WORDS.items()
            if name in PRESETS
        ],
        "settings": controls(),
        "methods": [
            {"name": name, "source": METHODS[name].source, "chosen": name in CHOSEN}
            for name in PEERS
        ],
        "scalings": [
            {
                "name": name,
                "mean": scaling["mean"],
                "std": scaling["std"],
                "bgr": scaling.get("channels") == "BGR",
            }
            for name, scaling in USUAL.items()
        ],
        "examples": [
            {"name": name, "title": NAMES[name], "picture": photo_uri(photo.pixels, 160)}
            for name, photo in examples.items()
        ],
        "limits": {
            "upload": limits.upload,
            "network": limits.network,
            "pixels": limits.pixels,
            "seconds": limits.seconds,
            "stay": limits.away / 3,
            "age": limits.age,
        },
    }


def controls() -> list[dict[str, Any]]:
    """The settings, made from the fields of ``Settings`` and their docs.

    Returns:
        For each its ``name``, its ``kind`` (``choice``, ``flag`` or ``number``), the ``choices``,
        and a sentence that says what it does.
    """
    said = helps()
    return [
        {"name": field.name, "help": said[field.name], **_kind(_HINTS[field.name])}
        for field in fields(Settings)
        if field.name != "preset"
    ]


def helps() -> dict[str, str]:
    """What the docstring of ``Settings`` says on each field, in its first sentence."""
    text = str(Settings.__doc__).partition("Args:")[2].partition("Raises:")[0]
    found = {}
    for name, body in re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w|\Z)", text, re.M | re.S):
        plain = re.sub(r"\s+", " ", body).replace("``", "").replace("\\|", "|").strip()
        sentence = re.split(r"\.(?: |$)", plain)[0]
        found[name] = f"{sentence[0].upper()}{sentence[1:]}."
    return found


def _kind(hint: Any) -> dict[str, Any]:
    if get_origin(hint) is Literal:
        return {"kind": "choice", "choices": list(get_args(hint))}
    if hint is bool:
        return {"kind": "flag"}
    return {"kind": "number"}
