"""The pictures in the README: ``make figures`` draws them again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from photos import COFFEE, SHIPPED, cat_beside_coffee
from torchfbi import Explanation, Photo, Settings, explain, load, plot
from torchfbi.evaluate import compare
from torchfbi.evaluate.peers import find
from torchfbi.plot.overlay import raster, revealed, strengthen
from torchfbi.plot.style import MARGIN, SMALL, Sheet

HERE = Path(__file__).parent
PRESETS = {
    "contrast": ("contrast (default)", Settings.contrast()),
    "paper": ("paper, tau = 0", Settings.paper(tau=0.0)),
}
SIDE, GAP, TOP = 2.3, 0.2, 0.75


def two_objects() -> None:
    """Asked for each class in turn: which preset moves?"""
    network, photo = load("efficientnet-lite0"), Photo(cat_beside_coffee(), "cat beside coffee")
    width = 2 * MARGIN + 4 * SIDE + 3 * GAP
    sheet = Sheet(width, TOP + SIDE + 0.5, dark=False)
    sheet.heading("Which pixels speak for the class that was asked for?", "efficientnet-lite0")
    column = 0
    for name, settings in PRESETS.values():
        for target in ("tabby cat", "espresso"):
            x = MARGIN + column * (SIDE + GAP)
            explanation = explain(network, photo, target, settings)
            panel(sheet, explanation, x, f"{name}: {target}")
            column += 1
    plot.save(sheet.figure, HERE / "two-objects.png", dpi=120)


def panel(sheet: Sheet, explanation: Explanation, x: float, title: str) -> None:
    """One support over the photo, and how much of what speaks for it lies on the cat's half."""
    axes = sheet.panel(x, TOP, SIDE, SIDE, label=title)
    seen = raster(explanation, 0)
    strength = strengthen(explanation.evidence[0].numpy(), seen.shape[:2])
    sheet.picture(axes, revealed(seen, strength), seen.shape[:2])
    energy = explanation.evidence[0].relu()
    left = (energy[:, : energy.shape[1] // 2].sum() / energy.sum()).item()
    sheet.write(x, TOP + SIDE + 0.06, title, bold=True, size=SMALL, width=SIDE)
    claim = f"{left:.0%} of it on the cat's half"
    sheet.write(x, TOP + SIDE + 0.24, claim, size=SMALL)


def espresso() -> None:
    """The demo's figure, and the flow behind it."""
    explanation = explain("efficientnet-lite0", COFFEE, record=True)
    explanation = replace(explanation, verdicts=explanation.verify())
    plot.save(explanation.plot(), HERE / "espresso.png", dpi=120)
    plot.save(plot.flow_figure(explanation), HERE / "flow.png", dpi=120)


def eight_photos() -> None:
    """The study's: the default, the signal that it rests on, the paper, and two peers."""
    photos = [*SHIPPED, Photo(cat_beside_coffee(), "cat beside coffee")]
    signed = replace(find(Settings.contrast(values="signal")), name="signal")
    positive = replace(find(Settings.paper(tau=0.0, k=1.0)), name="paper, tau 0, k 100 %")
    methods = ["fbi", signed, positive, "guided-backprop", "grad-cam"]
    found = compare("efficientnet-lite0", photos, methods)
    plot.save(found.plot(), HERE / "eight-photos.png", dpi=70)


if __name__ == "__main__":
    espresso()
    two_objects()
    eight_photos()
