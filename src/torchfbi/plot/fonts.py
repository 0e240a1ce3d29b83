"""Letters that Matplotlib's own font lacks: another installed font, or something readable."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font

from torchfbi.system.names import shown

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation

UNKNOWN = "?"
"""Stands for letters that no font has."""


@functools.cache
def _letters(path: str) -> frozenset[int]:
    """What a font file has outlines for; none if it cannot be drawn, like coloured emoji."""
    try:
        font = FT2Font(path)
    except (RuntimeError, OSError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


@functools.cache
def _family(letter: str) -> str | None:
    """The first installed family that has a letter."""
    for entry in sorted(fontManager.ttflist, key=lambda entry: entry.name):
        boxes_only = "LastResort" in entry.name.replace(" ", "")
        if not boxes_only and ord(letter) in _letters(entry.fname):
            return str(entry.name)
    return None


def _missing(text: str) -> list[str]:
    own = _letters(str(findfont(FontProperties())))
    return [letter for letter in dict.fromkeys(text) if ord(letter) not in own and letter > " "]


def fitting(text: str) -> tuple[str, list[str]]:
    """A text as it can be written, and the font families that have its letters."""
    text = shown(text, UNKNOWN)
    families = {letter: _family(letter) for letter in _missing(text)}
    lost = "".join(letter for letter, family in families.items() if family is None)
    if lost:
        text = re.sub(f"[{re.escape(lost)}]+", UNKNOWN, text)
    found = dict.fromkeys(family for family in families.values() if family is not None)
    return text, [*matplotlib.rcParams["font.family"], *found]


def label(explanation: Explanation, number: int) -> str:
    """The name of a class, or its number where no font has the name's letters."""
    name = explanation.label(number)
    return name if all(map(_family, _missing(name))) else f"class {number}"


def title(explanation: Explanation, index: int) -> str:
    """``Explanation.title``, with the class named by ``label``."""
    if explanation.target is None:
        return explanation.title(index)
    number = int(explanation.target[index])
    rest = explanation.title(index).removeprefix(explanation.label(number))
    return label(explanation, number) + rest
