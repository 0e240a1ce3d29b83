"""Arrays as pictures inside an answer, as data URIs: nothing is stored and nothing is loaded."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.colors import Colormap
from PIL import Image

from torchfbi.plot.overlay import RASTER, overlay, signed_limit, strengthen
from torchfbi.plot.style import LIGHT, Array

LONGEST = 960
"""The longer side, in pixels, of the photo on the page."""


def photo_uri(pixels: Array, longest: int = LONGEST) -> str:
    """uint8 (H, W, 3) as a picture of at most that size."""
    return _uri(_small(pixels, longest), quality=88)


def painted_uri(pixels: Array, magnitude: Array, longest: int = RASTER) -> str:
    """A map (h, w) >= 0 over the veiled picture, uint8 (H, W, 3), as the figures paint it."""
    picture = _small(pixels, longest)
    strength = strengthen(magnitude, (picture.height, picture.width))
    painted = overlay(np.asarray(picture) / 255, strength, LIGHT)
    return _uri(Image.fromarray((painted * 255).round().astype(np.uint8)), quality=90)


def forward_uri(activation: Array) -> str:
    """An activation (h, w) from its lowest to its highest value, pixel by pixel."""
    low, high = activation.min(), activation.max()
    return _mapped((activation - low) / max(high - low, 1e-12), LIGHT.forward)


def signed_uri(signal: Array) -> str:
    """A signed map (h, w), pixel by pixel; zero is white."""
    return _mapped(0.5 + signal / (2 * signed_limit(signal)), LIGHT.diverging)


def _small(pixels: Array, longest: int) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return image


def _mapped(relative: Array, colours: Colormap) -> str:
    pixels = colours(np.clip(relative, 0, 1), bytes=True)[..., :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return _uri(image, lossless=True) if min(image.size) < 64 else _uri(image, quality=80)


def _uri(image: Image.Image, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=1, **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
