"""Several methods side by side: a row for every image and target, a column for every method."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from torchfbi.plot.overlay import revealed, signed_limit, strengthen
from torchfbi.plot.style import MARGIN, NORMAL, SMALL, Array, Sheet

_WIDTH, _GAP, _TOP, _TEXT, _LEGEND = 10.0, 0.14, 1.15, 0.5, 0.62
_NARROW, _BROAD = 1.3, 2.4
_PAD = 0.08
"""Inches around the text in a cell."""


class Heading(NamedTuple):
    """What a row asks.

    Args:
        picture: the image as the network sees it, uint8 (H, W, 3).
        target: the class that was asked for.
        note: a line below it, such as its probability.
    """

    picture: Array
    target: str
    note: str


class Drawn(NamedTuple):
    """One method's answer.

    Args:
        look: ``signal``: values (H, W) in the colours of a signed scale, on the plain page;
            ``evidence``: a map (H, W) >= 0 over the photo; ``failed``: nothing to draw.
        values: the array, or None.
        note: a line below the picture; of a failure the reason, which stands in its place.
    """

    look: Literal["signal", "evidence", "failed"]
    values: Array | None
    note: str


def compare_figure(
    questions: Sequence[Heading],
    answers: Sequence[Sequence[Drawn]],
    methods: Sequence[str],
    title: str,
    subtitle: str,
    *,
    dark: bool = False,
) -> Figure:
    """Draw what several methods answer, as in the paper's Table 1.

    Every cell's colours have their own scale, since methods measure in different units.

    Args:
        questions: a row each, pictures of one size.
        answers: one a row and method, ``answers[row][column]``.
        methods: the headings of the columns after the input.
        title, subtitle: the lines at the top.
        dark: light text on a dark page.

    Returns:
        A figure about 10 inches wide, wider where there are many methods.
    """
    height, width = questions[0].picture.shape[:2]
    columns = len(methods) + 1
    room = (_WIDTH - 2 * MARGIN + _GAP) / columns - _GAP
    side = min(max(room, _NARROW), _BROAD)
    tall = side * min(max(height / width, 0.5), 2.0)
    across = max(2 * MARGIN + columns * (side + _GAP) - _GAP, 5.0)
    sheet = Sheet(across, _TOP + len(questions) * (tall + _TEXT) + _LEGEND, dark)
    sheet.heading(title, subtitle)
    for column, name in enumerate(("input", *methods)):
        lines = textwrap.wrap(name, _letters(side, NORMAL))[-2:]
        for line, text in enumerate(reversed(lines)):
            x, y = MARGIN + column * (side + _GAP), _TOP - 0.23 - 0.16 * line
            sheet.write(x, y, text, bold=True, width=side)
    for row, question in enumerate(questions):
        y = _TOP + row * (tall + _TEXT)
        axes = sheet.panel(MARGIN, y, side, tall, label=f"input {row}")
        sheet.picture(axes, question.picture, (height, width))
        sheet.write(MARGIN, y + tall + 0.05, question.target, bold=True, size=SMALL, width=side)
        _note(sheet, MARGIN, y + tall + 0.16, side, question.note)
        for column, answer in enumerate(answers[row]):
            x = MARGIN + (column + 1) * (side + _GAP)
            _answer(sheet, question, answer, (x, y, side, tall), f"{methods[column]} {row}")
    _legend(sheet, {answer.look for row in answers for answer in row})
    return sheet.figure


Box = tuple[float, float, float, float]
"""Left, top, width and height in inches."""


def _answer(sheet: Sheet, question: Heading, answer: Drawn, box: Box, label: str) -> None:
    x, y, width, height = box
    shape = question.picture.shape[0], question.picture.shape[1]
    axes = sheet.panel(*box, label=label)
    if answer.values is None:
        sheet.picture(axes, np.full((*shape, 3), to_rgb(sheet.theme.track)), shape)
        text = _wrapped(f"failed: {answer.note}", width - 2 * _PAD, height - 2 * _PAD)
        sheet.write(x + _PAD, y + _PAD, text, size=SMALL)
        return
    if answer.look == "signal":
        limit = signed_limit(answer.values)
        colours = {"cmap": sheet.theme.diverging, "vmin": -limit, "vmax": limit}
        sheet.picture(axes, answer.values, shape, **colours)
    else:
        strength = strengthen(answer.values, shape)
        sheet.picture(axes, revealed(question.picture / 255, strength), shape)
    if not answer.values.any():
        middle, centre = y + height / 2 - 0.07, x + width / 2
        said = sheet.write(centre, middle, "empty: no evidence", size=SMALL, align="center")
        said.set_bbox({"facecolor": sheet.theme.background, "edgecolor": "none", "pad": 4})
    _note(sheet, x, y + height, width, answer.note)


def _note(sheet: Sheet, x: float, bottom: float, width: float, text: str) -> None:
    """A small line below a picture that ends at ``bottom``."""
    sheet.write(x, bottom + 0.05, text, size=SMALL, colour=sheet.theme.muted, width=width)


def _wrapped(text: str, width: float, height: float) -> str:
    """The text in lines that fit into a box of these inches; what does not is cut off."""
    lines = max(1, int(height * 72 / (1.3 * SMALL)))
    return textwrap.fill(text, _letters(width, SMALL), max_lines=lines, placeholder=" …")


def _letters(width: float, size: float) -> int:
    """How many letters of ordinary text fit into so many inches."""
    return max(8, int(width * 72 / (0.62 * size)))


def _legend(sheet: Sheet, looks: set[str]) -> None:
    """Scales for the looks that occur, side by side."""
    x, y, width = MARGIN, sheet.height - _LEGEND + 0.12, 2.1
    if "signal" in looks:
        ends = ["−", "signal, channels summed", "+"]
        sheet.scale(x, y, width, sheet.theme.diverging, ends)
        x += width + 0.4
    lines = ["Support: the fewest pixels that hold 97%. Each picture has a scale of its own."]
    if "evidence" in looks:
        lines.insert(0, "In the photo's own colours: what speaks for the class.")
    room = sheet.width - MARGIN - x
    for line, text in enumerate(lines if room > 2 else []):
        place = y - 0.03 + 0.17 * line
        sheet.write(x, place, text, size=SMALL, colour=sheet.theme.muted, width=room)
