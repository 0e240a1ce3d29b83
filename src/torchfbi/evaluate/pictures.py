"""Small pictures of scenes and maps for the report, as PNG in base64."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image, ImageChops, ImageColor, ImageFilter
from torch import Tensor

from torchfbi.benchmark import Scene, Suite
from torchfbi.plot.overlay import overlay, strengthen
from torchfbi.plot.style import LIGHT, Array

Key = tuple[str, str, int]
"""Suite, method, and the scene's number in the suite."""

SCENES = 8
"""How many scenes are shown of all suites together."""

SIDE = 224
"""The longer side of a picture, in pixels."""

COLOURS = 128
"""Of a picture of a map: a third of the bytes, and hardly to be seen."""


def shown(suite: Suite, suites: int) -> tuple[int, ...]:
    """Which scenes are shown where there are so many suites, evenly spaced."""
    count = min(len(suite), max(1, SCENES // suites))
    return tuple(i * len(suite) // count for i in range(count))


def over(scene: Scene, evidence: Tensor) -> str:
    """A map (H, W) in colour over the veiled picture."""
    picture = _resized(scene.picture)
    size = picture.height, picture.width
    strength = strengthen(evidence.numpy(), size)
    painted = overlay(np.asarray(picture) / 255, strength, LIGHT)
    image = Image.fromarray((painted * 255).round().astype(np.uint8))
    return _png(image.quantize(COLOURS))


def of(scene: Scene) -> str:
    """The picture itself, with its object outlined where it is known."""
    picture = _resized(scene.picture)
    known = scene.mask if scene.mask is not None else scene.cell
    if known is not None:
        inside = Image.fromarray(known.numpy()).convert("L").resize(picture.size)
        line = ImageChops.subtract(inside, inside.filter(ImageFilter.MinFilter(5)))
        picture.paste(ImageColor.getrgb(LIGHT.accent), mask=line)
    return _png(picture)


def _resized(pixels: Array) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = SIDE / max(image.size)
    coarse = max(image.size) < 64
    size = math.ceil(image.width * scale), math.ceil(image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST if coarse else Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
