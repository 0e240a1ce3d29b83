"""The figure of one explanation: photo, what speaks for the class in it, values, classes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from torchfbi.plot import fonts
from torchfbi.plot.overlay import overlay, raster, revealed, signed_limit, strengthen
from torchfbi.plot.style import MARGIN, SMALL, Array, Sheet, caption, check, drawn_ratio

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation

_WIDTH, _GAP, _BARS, _TOP, _LEGEND = 10.0, 0.2, 2.1, 1.0, 0.5
_LINE, _LETTERS = 0.18, 13.5
"""Inches from one line of the verdict to the next, and letters an inch."""
_SECOND = "#2a78d6"
"""The outline of a second sufficient part."""


def explanation_figure(
    explanation: Explanation,
    index: int = 0,
    *,
    dark: bool = False,
    box: tuple[float, float, float, float] | None = None,
) -> Figure:
    """Draw one sample of an explanation in a row of panels.

    From left to right: the photo, with an outline around what the network saw of it; the photo
    again, in its own colours where something speaks for the class and dim elsewhere; ``values``
    summed over the colour channels; the five most probable classes, and the probed one if it is
    not among them. What has to be known first (``Explanation.warnings``) stands below, in the
    accent's colour. An explanation that was verified also says what came of it, and outlines the
    part of the photo that suffices, and a second one where there is one. Without a photo the first
    panel is left out and what speaks for the class is painted on plain grey; without class
    probabilities the last one is left out.

    Args:
        explanation: of pictures, values (N, C, H, W).
        index: which sample.
        dark: light text on a dark page.
        box: left, top, right and bottom of the box that a detector was asked about, in pixels of
            the network's input: it is outlined in what the network saw.

    Returns:
        A Matplotlib figure that belongs to no window; see ``torchfbi.plot.save``.

    Raises:
        SettingsError: no such sample, or it is no picture.
    """
    check(explanation, index)
    seen = raster(explanation, index)
    shape = seen.shape[0], seen.shape[1]
    panels = {"evidence": _aspect(*shape), "values": _aspect(*shape)}
    if explanation.photos:
        panels = {"photo": _aspect(*explanation.photos[index].shape), **panels}
    bars = _BARS if explanation.logits.ndim == 2 else -_GAP
    free = _WIDTH - 2 * MARGIN - len(panels) * _GAP - bars
    side = min(free / sum(panels.values()), 3.0)
    width = _WIDTH - free + side * sum(panels.values())
    verdict = explanation.verdicts[index] if explanation.verdicts else None
    letters = round(_LETTERS * width)
    said = [] if verdict is None else textwrap.wrap(verdict.sentence, letters)
    warned = [textwrap.wrap(text, letters) for text in explanation.warnings(index)]
    lines = sum(len(part) + 1 for part in warned) + len(said) + 2 * bool(said)
    sheet = Sheet(width, _TOP + side + _LEGEND + _LINE * lines, dark)
    sheet.heading(fonts.title(explanation, index), caption(explanation, index))
    draw = {"photo": _photo, "values": _values, "evidence": _evidence}
    x = MARGIN
    for panel, aspect in panels.items():
        axes = draw[panel](sheet, explanation, index, (x, _TOP, aspect * side, side), seen)
        if box is not None and panel != "photo":
            down, across = (n / m for n, m in zip(shape, explanation.values.shape[2:], strict=True))
            left, top, right, bottom = box
            scaled = (left * across, top * down, right * across, bottom * down)
            _outline(axes, scaled, sheet.theme.accent)
        x += aspect * side + _GAP
    if explanation.logits.ndim == 2:
        _classes(sheet, explanation, index, (x, _TOP, bars, side))
    y = _TOP + side + _LEGEND + _LINE / 2
    for part in warned:
        for text in part:
            sheet.write(MARGIN, y, text, size=SMALL, bold=True, colour=sheet.theme.accent)
            y += _LINE
        y += _LINE
    if verdict is not None:
        sheet.write(MARGIN, y, f"Tested: {verdict.ruling}", size=SMALL, bold=True)
        for line, text in enumerate(said, start=1):
            sheet.write(MARGIN, y + _LINE * line, text, size=SMALL, colour=sheet.theme.muted)
    return sheet.figure


Box = tuple[float, float, float, float]
"""Left, top, width and height in inches."""


def _aspect(height: int, width: int) -> float:
    """How much wider than tall a panel is: very wide or tall pictures do not fill theirs."""
    return float(np.clip(width / height, 0.6, 1.4))


def _photo(sheet: Sheet, explanation: Explanation, index: int, box: Box, seen: Array) -> Axes:
    photo, region = explanation.photos[index], explanation.regions[index]
    height, width = photo.shape
    axes = sheet.panel(*box, label="photo")
    sheet.picture(axes, photo.pixels, photo.shape)
    _title(sheet, box, "Photo")
    legend = f"{width} × {height} pixels"
    covered = (region.right - region.left) * (region.bottom - region.top)
    if covered < 0.999 * width * height:
        legend = "box: the network's input"
        corners = (region.left, region.top, region.right, region.bottom)
        _outline(axes, corners, sheet.theme.accent)
    if (drawn := drawn_ratio(photo.shape)) != height / width:
        legend = f"{'box: input' if legend.startswith('box') else legend}, not to scale"
    x, y, room, side = box
    below = y + min(side, room * drawn) + 0.08
    sheet.write(x, below, legend, size=SMALL, colour=sheet.theme.muted, width=room)
    return axes


def _outline(axes: Axes, corners: tuple[float, float, float, float], colour: str) -> None:
    left, top, right, bottom = corners
    size = right - left, bottom - top
    for edge, thickness in (("white", 3.2), (colour, 1.6)):
        axes.add_patch(
            Rectangle((left, top), *size, fill=False, edgecolor=edge, linewidth=thickness)
        )


def _values(sheet: Sheet, explanation: Explanation, index: int, box: Box, seen: Array) -> Axes:
    values = explanation.values[index].detach().sum(0).float().cpu().numpy()
    axes = sheet.panel(*box, label="values")
    limit = signed_limit(values)
    shape = seen.shape[0], seen.shape[1]
    sheet.picture(axes, values, shape, cmap=sheet.theme.diverging, vmin=-limit, vmax=limit)
    kind = explanation.settings.values
    several = len(explanation.values[index]) > 1 and box[2] > 2
    title = "Values, channels summed" if several else "Values"
    _title(sheet, box, "Evidence" if kind == "evidence" else title)
    if not values.any():
        return axes
    middle = {"signal": "signal", "evidence": "against · for"}[kind]
    x, y, width, side = box
    ends = [f"−{limit:.2g}", middle, f"+{limit:.2g}"]
    sheet.scale(x, y + side + 0.1, width, sheet.theme.diverging, ends)
    return axes


def _evidence(sheet: Sheet, explanation: Explanation, index: int, box: Box, seen: Array) -> Axes:
    shape = seen.shape[0], seen.shape[1]
    strength = strengthen(explanation.evidence[index].detach().float().cpu().numpy(), shape)
    axes = sheet.panel(*box, label="evidence")
    x, y, width, side = box
    if explanation.photos:
        sheet.picture(axes, revealed(seen, strength), shape)
        note = "in colour: what speaks for it"
        if explanation.verdicts:
            masks = explanation.verdicts[index].masks()
            for name, colour in (("sufficient", sheet.theme.accent), ("second", _SECOND)):
                if name in masks and not masks[name].all():
                    note = "outlined: enough for the network"
                    _contour(axes, masks[name].cpu().numpy(), shape, colour)
        sheet.write(x, y + side + 0.08, note, size=SMALL, colour=sheet.theme.muted, width=width)
    else:
        sheet.picture(axes, overlay(seen, strength, sheet.theme), shape)
        sheet.scale(x, y + side + 0.1, width, sheet.theme.heat, ["weak", "evidence", "strong"])
    _title(sheet, box, "What it saw")
    if reason := explanation.emptiness(index):
        sheet.announce(axes, reason)
    return axes


def _contour(axes: Axes, mask: Array, shape: tuple[int, int], colour: str) -> None:
    """The outline of a mask (h, w) on a picture of this height and width."""
    down, across = (
        (np.arange(n) + 0.5) * size / n for n, size in zip(mask.shape, shape, strict=True)
    )
    for edge, thickness in (("white", 2.4), (colour, 1.2)):
        axes.contour(across, down, mask, [0.5], colors=[edge], linewidths=thickness)


def _classes(sheet: Sheet, explanation: Explanation, index: int, box: Box) -> None:
    x, y, width, side = box
    probed = None if explanation.target is None else int(explanation.target[index])
    rows = explanation.top(5, index)
    if probed is not None and probed not in [number for number, _, _ in rows]:
        probability = explanation.probabilities[index, probed].item()
        rows.append((probed, "", probability))
    axes = sheet.panel(*box, label="classes")
    axes.set(xlim=(0, 1), ylim=(side, 0))
    _title(sheet, box, "Most probable classes")
    step = side / max(len(rows), 5)
    for row, (number, _, probability) in enumerate(rows):
        top, is_probed = row * step, number == probed
        ink = sheet.theme.accent if is_probed else sheet.theme.ink
        name = fonts.label(explanation, number)
        sheet.write(x, y + top, name, width=width - 0.6, colour=ink, bold=is_probed)
        sheet.write(x + width, y + top, f"{probability:.1%}", align="right", colour=ink)
        fill = sheet.theme.accent if is_probed else sheet.theme.muted
        for length, colour in ((1, sheet.theme.track), (probability, fill)):
            axes.barh(top + 0.22, length, height=0.07, color=colour)
    if probed is not None:
        note = "coloured: the probed class"
        sheet.write(x, y + side + 0.08, note, size=SMALL, colour=sheet.theme.muted, width=width)


def _title(sheet: Sheet, box: Box, text: str) -> None:
    sheet.write(box[0], box[1] - 0.24, text, width=box[2], bold=True)
