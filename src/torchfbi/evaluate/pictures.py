"""Small pictures of scenes and maps for the report, as PNG in base64."""

from __future__ import annotations

from PIL import Image, ImageChops, ImageColor, ImageFilter
from torch import Tensor

from torchfbi.benchmark import Scene, Suite
from torchfbi.plot import thumbnail
from torchfbi.plot.style import LIGHT

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
