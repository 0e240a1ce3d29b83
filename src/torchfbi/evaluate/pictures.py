"""Small pictures of scenes and maps for the report, as PNG in base64."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageColor, ImageFilter
from torch import Tensor

from torchfbi.evaluate.benchmark import Scene, Suite
from torchfbi.plot import thumbnail
from torchfbi.plot.curves import Line, curves_figure
from torchfbi.plot.files import encode
from torchfbi.plot.style import LIGHT

if TYPE_CHECKING:
    from torchfbi.evaluate.table import Table

REMOVED = {"blur": "by blur", "mean": "to the mean colour", "road": "by imputation (ROAD)"}
"""Kinds of removal in words."""

Key = tuple[str, str, int]
"""Suite, method, and the scene's number in the suite."""

SCENES = 8
"""How many scenes are shown of all suites together."""


def shown(suite: Suite, suites: int) -> tuple[int, ...]:
    """Which scenes are shown where there are so many suites, evenly spaced."""
    count = min(len(suite), max(1, SCENES // suites))
    return tuple(i * len(suite) // count for i in range(count))


def over(scene: Scene, evidence: Tensor) -> str:
    """A map (H, W) in colour over the veiled picture."""
    return thumbnail.over(scene.picture, evidence.numpy())


def of(scene: Scene) -> str:
    """The picture itself, with its object outlined where it is known."""
    picture = thumbnail.small(scene.picture)
    known = scene.mask if scene.mask is not None else scene.cell
    if known is not None:
        inside = Image.fromarray(known.numpy()).convert("L").resize(picture.size)
        line = ImageChops.subtract(inside, inside.filter(ImageFilter.MinFilter(5)))
        picture.paste(ImageColor.getrgb(LIGHT.accent), mask=line)
    return thumbnail.in_base64(picture)


def curves(table: Table, suite: Suite, kind: str) -> Figure | None:
    """The mean curves of all methods on a suite for one kind of removal; None without any."""
    lines = []
    for method in table.methods:
        found = table.curves.get((suite.name, method.name, kind))
        if found is not None:
            share, insertion, deletion = (part.mean(0).numpy() for part in found)
            gain = found.gain().mean().item()
            lines.append(Line(method.name, method.family, share, insertion, deletion, gain))
    if not lines:
        return None
    title = f"{len(suite)} scenes  ·  {suite.model.name}  ·  removed: {REMOVED[kind]}"
    return curves_figure(lines, title)


def page(figure: Figure) -> str:
    """A figure for the report."""
    return base64.b64encode(encode(figure, "png", 110)).decode()
