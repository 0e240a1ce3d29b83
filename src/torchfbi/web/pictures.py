"""Arrays as pictures inside the page, as data URIs: nothing is stored and nothing is loaded."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib.colors import Colormap
from PIL import Image

from torchfbi.plot.overlay import RASTER, signed_limit, strengthen
from torchfbi.plot.style import DARK, Array

LONGEST = 960
"""The longer side, in pixels, of the photo on the page."""


def photo_uri(pixels: Array, longest: int = LONGEST) -> str:
    """uint8 (H, W, 3) as a picture of at most that size."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return _uri(image, quality=88)


def heat_uri(magnitude: Array, shape: tuple[int, int], longest: int = RASTER) -> str:
    """A map (h, w) >= 0 as a glow to lie over the photo: transparent where there is nothing.

    Args:
        magnitude: the map.
        shape: height and width that give the aspect.
        longest: the longer side in pixels.
    """
    scale = longest / max(shape)
    size = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
    strength = strengthen(magnitude, size)
    colours = DARK.heat(strength)
    colours[..., 3] = np.minimum(2 * strength, 1)  # as plot.overlay paints it
    return _uri(Image.fromarray((colours * 255).round().astype(np.uint8)), quality=85)


def forward_uri(activation: Array) -> str:
    """An activation (h, w) from its lowest to its highest value, pixel by pixel."""
    low, high = activation.min(), activation.max()
    return _mapped((activation - low) / max(high - low, 1e-12), DARK.forward)


def signed_uri(signal: Array) -> str:
    """A signed map (h, w), pixel by pixel; zero is nearly black."""
    return _mapped(0.5 + signal / (2 * signed_limit(signal)), DARK.diverging)


def _mapped(relative: Array, colours: Colormap) -> str:
    pixels = colours(np.clip(relative, 0, 1), bytes=True)[..., :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return _uri(image, lossless=True) if min(image.size) < 64 else _uri(image, quality=80)


def _uri(image: Image.Image, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", method=1, **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
