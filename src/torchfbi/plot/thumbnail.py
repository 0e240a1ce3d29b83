"""Small pictures for HTML pages, in base64."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from PIL import Image

from torchfbi.plot.overlay import overlay, revealed, strengthen
from torchfbi.plot.style import LIGHT, Array

SIDE = 224
"""The longer side of a picture, in pixels."""

TINY, QUALITY = 160, 65
"""The longer side of a picture among thousands, and how well WebP keeps it: about 4 kB each."""

COLOURS = 128
"""Of a picture of a map: a third of the bytes, and hardly to be seen."""


def small(pixels: Array, side: int = SIDE) -> Image.Image:
    """A picture, uint8 (H, W, 3), whose longer side is ``side``; coarse ones keep their squares."""
    image = Image.fromarray(pixels)
    scale = side / max(image.size)
    coarse = max(image.size) < 64
    size = math.ceil(image.width * scale), math.ceil(image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST if coarse else Image.Resampling.LANCZOS)


def over(pixels: Array, evidence: Array) -> str:
    """A picture, uint8 (H, W, 3), revealed by a map (h, w) of evidence, as PNG."""
    picture = small(pixels)
    strength = strengthen(evidence, (picture.height, picture.width))
    return in_base64(_quantised(revealed(np.asarray(picture) / 255, strength)))


def tiny(pixels: Array, evidence: Array) -> str:
    """As ``over``, smaller: WebP, to follow ``data:image/webp;base64,``."""
    picture = small(pixels, TINY)
    strength = strengthen(evidence, (picture.height, picture.width))
    shown = revealed(np.asarray(picture) / 255, strength)
    buffer = io.BytesIO()
    Image.fromarray((shown * 255).round().astype(np.uint8)).save(buffer, "WEBP", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def alone(share: Array) -> str:
    """A map (h, w) of shares in [0, 1] in colour on white, the largest share the darkest."""
    largest = share.max() or 1.0
    blank = small(np.full((*share.shape, 3), 255, np.uint8))
    size = blank.width, blank.height
    strength = Image.fromarray((share / largest).astype(np.float32)).resize(size)
    shown = overlay(np.asarray(blank) / 255, np.clip(np.asarray(strength), 0, 1), LIGHT)
    return in_base64(_quantised(shown))


def in_base64(image: Image.Image) -> str:
    """The picture as PNG, to follow ``data:image/png;base64,``."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _quantised(picture: Array) -> Image.Image:
    return Image.fromarray((picture * 255).round().astype(np.uint8)).quantize(COLOURS)
