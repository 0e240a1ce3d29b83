"""The figure of an evaluation on photos: the class's probability while patches come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchfbi.plot.style import MARGIN, SMALL, Array, Sheet

_WIDTH, _TOP, _SIDE, _NAMES, _PITCH = 10.0, 1.0, 3.05, 2.75, 0.19


class Line(NamedTuple):
    """One method.

    Args:
        name: the method's.
        family: ``fbi`` lines are drawn strongest, ``control`` lines dashed.
        share: of the pixels, from 0 to 1, (steps + 1,).
        insertion, deletion: the mean probability over that of the whole image, (steps + 1,).
        gain: the area between both, for the legend.
    """

    name: str
    family: Literal["fbi", "peer", "control"]
    share: Array
    insertion: Array
    deletion: Array
    gain: float


def curves_figure(lines: Sequence[Line], subtitle: str) -> Figure:
    """Draw the insertion curves on the left and the deletion curves on the right.

    Args:
        lines: at least one; the legend names them by their gain, the largest first.
        subtitle: what they are of.
    """
    ordered = sorted(lines, key=lambda line: -line.gain)
    height = max(_SIDE + 0.5, 0.3 + len(ordered) * _PITCH)
    sheet = Sheet(_WIDTH, _TOP + height, dark=False)
    sheet.heading("Is what a map names first enough, and is it needed?", subtitle)
    styles = _styles(ordered, sheet)
    for place, (title, number) in enumerate(
        (("kept, highest first: high is good", 1), ("removed, highest first: low is good", 2))
    ):
        x = MARGIN + 0.4 + place * (_SIDE + 0.35)
        sheet.write(x, _TOP - 0.28, title, size=SMALL, bold=True)
        axes = sheet.panel(x, _TOP, _SIDE, _SIDE, label=title)
        _frame(axes, sheet)
        for line, style in zip(ordered, styles, strict=True):
            curve = line.insertion if number == 1 else line.deletion
            axes.plot(line.share, curve, **style)  # type: ignore[arg-type]
        sheet.write(x, _TOP + _SIDE + 0.27, "share of the pixels", size=SMALL)
    _legend(sheet, ordered, styles)
    return sheet.figure


def _styles(lines: Sequence[Line], sheet: Sheet) -> list[dict[str, object]]:
    hues = iter(matplotlib.colormaps["tab20"].colors * 3)  # type: ignore[attr-defined]
    theme = sheet.theme
    return [
        {"color": theme.accent, "linewidth": 2.4}
        if line.family == "fbi"
        else {"color": next(hues), "linewidth": 1.0}
        if line.family == "peer"
        else {"color": theme.muted, "linewidth": 0.9, "linestyle": (0, (3, 1 + place % 4))}
        for place, line in enumerate(lines)
    ]


def _frame(axes: Axes, sheet: Sheet) -> None:
    axes.set_axis_on()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, None)
    axes.margins(y=0.05)
    axes.tick_params(labelsize=SMALL, colors=sheet.theme.muted)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(sheet.theme.muted)


def _legend(sheet: Sheet, lines: Sequence[Line], styles: Sequence[dict[str, object]]) -> None:
    x = _WIDTH - MARGIN - _NAMES
    height = len(lines) * _PITCH
    axes = sheet.panel(x, _TOP, 0.3, height, label="legend")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(lines), 0)
    for place, (line, style) in enumerate(zip(lines, styles, strict=True)):
        axes.plot([0, 1], [place + 0.5] * 2, **style)  # type: ignore[arg-type]
        y = _TOP + place * _PITCH + 0.02
        sheet.write(x + 0.38, y, line.name, size=SMALL, width=_NAMES - 0.85)
        sheet.write(_WIDTH - MARGIN, y, f"{line.gain:.2f}", size=SMALL, align="right")
