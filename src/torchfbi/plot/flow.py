"""The information flow of the paper's Figure 1: forward, evidence and what it reveals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from torchfbi.errors import SettingsError
from torchfbi.plot import fonts
from torchfbi.plot.overlay import raster, revealed, signed_limit, strengthen
from torchfbi.plot.style import MARGIN, SMALL, Array, Sheet, caption, check

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation
    from torchfbi.method.flow import LayerFlow

_LABELS, _GAP, _TOP, _HEADS, _ROW = 1.25, 0.1, 0.75, 0.6, 0.75
ROWS = (
    ("Forward", "activation,\nmean over\nthe maps"),
    ("Evidence", "signal times\nactivation, sum\nover the maps"),
    ("Support", "in colour: what\nspeaks for it"),
)
MOST = 9


@dataclass(frozen=True)
class Station:
    """One feature, ready to be drawn.

    Args:
        name: the layer.
        size: channels, height and width.
        maps: how many maps went on.
        density: the support's share of the positions.
        forward: mean activation over the maps, (h, w).
        evidence: the signed evidence at each position, (h, w).
    """

    name: str
    size: tuple[int, int, int]
    maps: int
    density: float
    forward: Array
    evidence: Array


def flow_figure(
    explanation: Explanation, index: int = 0, *, dark: bool = False, layers: int = 8
) -> Figure:
    """Draw how the information flows: columns from the top feature down to the pixels.

    Rows: the forward activation (mean over the maps), the evidence (signal times activation,
    summed over the maps, red for the class, blue against it) and the photo, revealed by what
    speaks for the class. Every picture has its own scale. Dense features are left out.

    Args:
        explanation: made with ``record=True``, of pictures.
        index: which sample.
        dark: light text on a dark page.
        layers: at most how many columns, 2 to 9; they are spread evenly over the depth and
            hold the top feature and the image.

    Raises:
        SettingsError: the flow was not recorded, no such sample, ``layers`` out of range.
    """
    if not 2 <= layers <= MOST:
        raise SettingsError(f"layers is {layers}: choose 2 to {MOST} columns.")
    flow = spatial_flow(explanation, index)
    chosen = np.unique(np.linspace(0, len(flow) - 1, layers).round().astype(int))
    photo = photo_of(explanation, index)
    room = 10 - 2 * MARGIN - _LABELS - (len(chosen) - 1) * _GAP
    side = min(room / len(chosen), 1.6)
    tall = max(float(np.clip(photo.shape[0] / photo.shape[1], 0.5, 1.6)) * side, _ROW)
    top, bottom = _TOP + _HEADS, _TOP + _HEADS + 3 * (tall + _GAP)
    sheet = Sheet(10 - room + len(chosen) * side, bottom + 1.2, dark)
    sheet.heading(
        f"{fonts.title(explanation, index)}: information flow", caption(explanation, index)
    )
    for row, (title, meaning) in enumerate(ROWS):
        y = top + row * (tall + _GAP)
        sheet.write(MARGIN, y, title, bold=True)
        sheet.write(MARGIN, y + 0.2, meaning, size=SMALL, colour=sheet.theme.muted)
    for line, text in enumerate(("Maps that go on", "Density")):
        sheet.write(MARGIN, bottom + 0.18 * line, text, size=SMALL, bold=True)
    for column, number in enumerate(chosen):
        station = station_of(flow[number], index)
        x = MARGIN + _LABELS + column * (side + _GAP)
        for line, text in enumerate(_heads(station, side)):
            colour = sheet.theme.muted if line == 2 else None
            y = _TOP + 0.17 * line
            sheet.write(x, y, text, size=SMALL, width=side, bold=line < 2, colour=colour)
        boxes = [(x, top + row * (tall + _GAP), side, tall) for row in range(3)]
        draw(sheet, station, photo, boxes)
        facts = f"{station.maps}/{station.size[0]}", f"{station.density:.1%}"
        for line, text in enumerate(facts):
            sheet.write(x, bottom + 0.18 * line, text, size=SMALL, width=side)
    _arrow(sheet, MARGIN + _LABELS, bottom + 0.5)
    _scales(sheet, MARGIN + _LABELS, bottom + 0.82)
    return sheet.figure


def _scales(sheet: Sheet, x: float, y: float) -> None:
    """What the colours of the first two rows mean; every panel is on its own scale."""
    room = (sheet.width - MARGIN - x - _GAP) / 2
    legends = (
        (sheet.theme.forward, ["low", "activation", "high"]),
        (sheet.theme.diverging, ["against", "evidence", "for"]),
    )
    sheet.write(MARGIN, y - 0.05, "Colours", size=SMALL, bold=True)
    for column, (colours, ends) in enumerate(legends):
        shown = ends if room > 1.2 else [ends[0], ends[-1]]
        sheet.scale(x + column * (room + _GAP), y, room, colours, shown)


def _heads(station: Station, side: float) -> tuple[str, str, str]:
    """The layer's name, in two lines if need be, and its size."""
    outer, _, inner = station.name.rpartition(".")
    fits = len(station.name) * 0.085 <= side  # inches that a bold letter takes
    first, second = (station.name, "") if fits or not outer else (outer, f".{inner}")
    return first, second, "×".join(map(str, station.size))


def spatial_flow(explanation: Explanation, index: int) -> list[LayerFlow]:
    """The features with spatial extent, from the top to the image."""
    check(explanation, index)
    if not explanation.flow:
        raise SettingsError(
            "this explanation holds no flow: call explain(..., record=True). The flow is not "
            "saved, so a loaded explanation has none."
        )
    return [
        seen
        for seen in explanation.flow
        if seen.support[0].ndim == 2 and seen.support[0].numel() > 1
    ]


def station_of(seen: LayerFlow, index: int) -> Station:
    """One sample of a feature as maps (h, w)."""
    activation = seen.activation[index].detach().movedim(seen.channel - 1, 0).float().cpu()
    channels, height, width = activation.shape
    return Station(
        name=seen.layer,
        size=(channels, height, width),
        maps=int(seen.kept_maps[index].sum()),
        density=seen.density[index].item(),
        forward=activation.mean(0).numpy(),
        evidence=seen.evidence[index].detach().float().cpu().numpy(),
    )


class FeatureMap(NamedTuple):
    """One feature map of a layer.

    Args:
        number: which one, from 0.
        share: of the magnitude of the signal that goes on in this layer, in [0, 1].
        activation: (h, w).
    """

    number: int
    share: float
    activation: Array


def strongest_maps(seen: LayerFlow, index: int, count: int) -> list[FeatureMap]:
    """The feature maps of one sample through which most of the signal goes on, strongest first.

    At most ``count``, and none through which nothing goes on or that is zero everywhere: it shows
    nothing, whatever went on there.
    """
    channel = seen.channel - 1
    activation, signal = (
        t[index].detach().movedim(channel, 0).float().cpu() for t in (seen.activation, seen.signal)
    )
    strength = signal.abs().sum((1, 2))
    total = strength.sum().item()
    strength[~activation.flatten(1).any(1)] = 0
    best = strength.topk(min(count, len(strength)))
    return [
        FeatureMap(number, value / total, activation[number].numpy())
        for number, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        if value > 0
    ]


def photo_of(explanation: Explanation, index: int) -> Array:
    """The photo, or the input itself stretched to [0, 1], (H, W, 3)."""
    if explanation.photos:
        return raster(explanation, index)
    image = explanation.flow[-1].activation[index].detach().float().cpu().numpy()
    colours = image if len(image) == 3 else image.mean(0, keepdims=True).repeat(3, 0)
    low, high = colours.min(), colours.max()
    stretched: Array = (colours - low) / max(high - low, 1e-12)
    return stretched.transpose(1, 2, 0)


def draw(
    sheet: Sheet, station: Station, photo: Array, boxes: list[tuple[float, float, float, float]]
) -> None:
    """Activation, evidence and support of one feature, each in its box."""
    shape = photo.shape[0], photo.shape[1]
    limit = signed_limit(station.evidence)
    strength = strengthen(station.evidence, shape)
    forward = photo if station.name == "image" else station.forward
    looks: dict[str, tuple[Array, dict[str, Any]]] = {
        "forward": (forward, {"cmap": sheet.theme.forward}),
        "evidence": (
            station.evidence,
            {"cmap": sheet.theme.diverging, "vmin": -limit, "vmax": limit},
        ),
        "support": (revealed(photo, strength), {}),
    }
    for box, (label, (pixels, options)) in zip(boxes, looks.items(), strict=True):
        axes = sheet.panel(*box, label=f"{station.name} {label}")
        sheet.picture(axes, pixels, shape, **options)


def _arrow(sheet: Sheet, start: float, y: float) -> None:
    """Which way the signal goes."""
    end = sheet.width - MARGIN
    muted = sheet.theme.muted
    sheet.write(start, y, "from the class", size=SMALL, colour=muted)
    sheet.write(end, y, "to the pixels", size=SMALL, colour=muted, align="right")
    height = 1 - (y + 0.07) / sheet.height
    sheet.figure.add_artist(
        FancyArrowPatch(
            ((start + 1.0) / sheet.width, height),
            ((end - 0.9) / sheet.width, height),
            transform=sheet.figure.transFigure,
            arrowstyle="-|>",
            mutation_scale=10,
            color=muted,
            linewidth=1,
        )
    )
