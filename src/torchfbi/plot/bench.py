"""The figure of a benchmark: a bar for each contender, as a multiple of the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchfbi.plot.style import MARGIN, SMALL, Sheet

if TYPE_CHECKING:
    from torchfbi.bench import Result, Timing

_WIDTH, _TOP, _NAMES, _NUMBERS, _PITCH, _HEAD, _GAP = 10.0, 0.85, 1.5, 2.4, 0.27, 0.3, 0.22


def bench_figure(results: Sequence[Result], machine: str, *, dark: bool = False) -> Figure:
    """Draw the ratios of all results on one scale; a fine line marks the forward pass.

    Args:
        results: what ``torchfbi.bench.run.run`` returned, one or more.
        machine: on what it was measured, for the second line.
        dark: light text on a dark page.
    """
    heights = [_HEAD + len(result.rows) * _PITCH + _GAP for result in results]
    sheet = Sheet(_WIDTH, _TOP + sum(heights) + 0.48, dark)
    sheet.heading("What an explanation costs, in forward passes", machine)
    ratios = [row.ratio for result in results for row in result.rows if row.ratio is not None]
    longest = max(ratio.high for ratio in ratios)
    y = _TOP
    for result, height in zip(results, heights, strict=True):
        sheet.write(MARGIN, y, result.title, bold=True, width=_WIDTH - 2 * MARGIN - _NUMBERS)
        captured = f"captured once, in {result.capture:.2f} s"
        numbers = _WIDTH - MARGIN - _NUMBERS + 0.12
        sheet.write(numbers, y, captured, size=SMALL, colour=sheet.theme.muted)
        _bars(sheet, result, y + _HEAD, longest)
        y += height
    for line, text in enumerate(_NOTES):
        sheet.write(MARGIN, y + 0.18 * line, text, size=SMALL, colour=sheet.theme.muted)
    return sheet.figure


_NOTES = (
    "Median of the ratios to the float32 forward pass of the same round; the dark line spans the "
    "quartiles.",
    "Memory: peak of one call above the loaded network. The paper preset is run with τ = 0, so "
    "that its signal is alive.",
)


def _bars(sheet: Sheet, result: Result, y: float, longest: float) -> None:
    theme, count = sheet.theme, len(result.rows)
    width = _WIDTH - 2 * MARGIN - _NAMES - _NUMBERS
    axes = sheet.panel(MARGIN + _NAMES, y, width, count * _PITCH, label=result.title)
    axes.set_xlim(0, longest)
    axes.set_ylim(count, 0)
    for place, row in enumerate(result.rows):
        middle = y + place * _PITCH + 0.06
        sheet.write(MARGIN, middle, row.name, size=SMALL, width=_NAMES - 0.1)
        sheet.write(
            MARGIN + _NAMES + width + 0.12,
            middle,
            _numbers(row),
            size=SMALL,
            colour=theme.muted,
            width=_NUMBERS - 0.12,
        )
        _bar(axes, row, place + 0.5, theme.accent if row.alive else theme.muted, theme.ink)
    axes.axvline(1.0, color=theme.ink, linewidth=0.6, linestyle=(0, (2, 3)))


def _bar(axes: Axes, row: Timing, place: float, colour: str, ink: str) -> None:
    if row.ratio is not None:
        axes.barh(place, row.ratio.median, 0.62, color=colour)
        axes.plot([row.ratio.low, row.ratio.high], [place, place], color=ink, linewidth=1.6)


def _numbers(row: Timing) -> str:
    if row.ratio is None or row.seconds is None:
        return row.failed
    memory = "" if row.memory is None else f"  ·  {row.memory.peak / 2**20:,.0f} MiB"
    return f"{row.ratio.median:.2f}  ·  {1000 * row.seconds.median:,.1f} ms{memory}"
