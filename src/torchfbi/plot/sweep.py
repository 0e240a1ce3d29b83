"""The figure of a sweep: one support a cell, k down, tau across."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from torchfbi.plot import fonts
from torchfbi.plot.overlay import overlay, raster, revealed, strengthen
from torchfbi.plot.style import MARGIN, SMALL, Sheet

if TYPE_CHECKING:
    from torchfbi.sweep import Sweep

_LABELS, _GAP, _TOP, _NUMBERS, _LEGEND = 0.9, 0.2, 1.05, 0.72, 0.75


def sweep_figure(sweep: Sweep, *, dark: bool = False) -> Figure:
    """Draw a sweep as a grid: a row for every k, a column for every tau.

    Every cell shows the support over the photo (on plain grey without one), its density, and
    the probability of the class when only the support is kept sharp and when it is blurred.
    Each cell's colours have their own scale.

    Args:
        sweep: what ``torchfbi.sweep.sweep`` returned.
        dark: light text on a dark page.
    """
    first = sweep.explanations[0][0]
    seen, photo = raster(first, 0), bool(first.photos)
    height, width = seen.shape[:2]
    columns = len(sweep.taus)
    room = 10 - 2 * MARGIN - _LABELS - (columns - 1) * _GAP
    side = max(1.25, min(room / columns, 2.4))  # the figure grows wider for many columns
    tall = min(side * height / width, 1.6 * side)
    across = MARGIN * 2 + _LABELS + columns * side + (columns - 1) * _GAP
    across = max(across, 7.5)
    pitch = tall + _NUMBERS
    sheet = Sheet(across, _TOP + len(sweep.ks) * pitch + _LEGEND, dark)
    sheet.heading(f"{fonts.title(first, 0)}: k and τ", _subtitle(sweep))
    for row, k in enumerate(sweep.ks):
        y = _TOP + row * pitch
        sheet.write(MARGIN, y, f"k = {k:.0%}", bold=True)
        for column, tau in enumerate(sweep.taus):
            x = MARGIN + _LABELS + column * (side + _GAP)
            if row == 0:
                sheet.write(x, y - 0.24, tau_name(tau), bold=True, width=side)
            heat = sweep.explanations[row][column].evidence[0].float().cpu().numpy()
            axes = sheet.panel(x, y, side, tall, label=f"k {k}, τ {tau}")
            strength = strengthen(heat, (height, width))
            drawn = revealed(seen, strength) if photo else overlay(seen, strength, sheet.theme)
            sheet.picture(axes, drawn, (height, width))
            if not strength.any():
                sheet.announce(axes, "empty support: nothing exceeds tau")
            _numbers(sheet, sweep, (row, column), (x, y + tall + 0.05, side))
    _legend(sheet, sweep)
    return sheet.figure


def _subtitle(sweep: Sweep) -> str:
    first = sweep.explanations[0][0]
    photo = [first.photos[0].name] if first.photos else []
    return "  ·  ".join([first.model, f"{first.settings.preset} preset otherwise", *photo])


def tau_name(tau: float | None) -> str:
    """How a column is called: ``τ = 0.1``."""
    return "no threshold" if tau is None else f"τ = {tau:g}"


def _numbers(
    sheet: Sheet, sweep: Sweep, cell: tuple[int, int], place: tuple[float, float, float]
) -> None:
    x, y, width = place
    lines = {
        "density": sweep.density[cell].item(),
        "p, kept": sweep.kept[cell].item(),
        "p, removed": sweep.removed[cell].item(),
    }
    for line, (name, value) in enumerate(lines.items()):
        sheet.write(x, y + 0.17 * line, name, size=SMALL, colour=sheet.theme.muted)
        sheet.write(x + width, y + 0.17 * line, f"{value:.1%}", size=SMALL, align="right")


def _legend(sheet: Sheet, sweep: Sweep) -> None:
    lines = (
        "density: the support's share of the pixels. In colour: what speaks for the class, each "
        "cell on its own scale.",
        "p, kept: the class's probability when all but the support is blurred; "
        f"all blurred: {sweep.blurred:.1%}.",
        "p, removed: its probability when the support is blurred; "
        f"nothing blurred: {sweep.probability:.1%}.",
    )
    for line, text in enumerate(lines):
        y = sheet.height - 0.7 + 0.19 * line
        sheet.write(MARGIN, y, text, size=SMALL, colour=sheet.theme.muted)
