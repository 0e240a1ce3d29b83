"""Arrays as pictures inside an answer, as data URIs: nothing is stored and nothing is loaded."""

from __future__ import annotations

import base64
import io
import itertools
import math

import numpy as np
from matplotlib.colors import Colormap
from PIL import Image

from torchfbi.models.images import Array
from torchfbi.models.preprocess import Region
from torchfbi.plot.overlay import RASTER, revealed, signed_limit, strengthen
from torchfbi.plot.style import LIGHT

MEAN = 1 / 3
"""Photos that are darker than this on average are brightened: dimmed, they would be black."""

LONGEST = 960
"""The longer side, in pixels, of the photo on the page."""


def photo_uri(pixels: Array, longest: int = LONGEST) -> str:
    """uint8 (H, W, 3) as a picture of at most that size."""
    return _uri(_small(pixels, longest), quality=88)


def revealed_uri(
    pixels: Array, evidence: Array, longest: int = RASTER, region: Region | None = None
) -> str:
    """A picture in its own colours where something speaks for the class, as the figures draw it.

    Args:
        pixels: the picture, uint8 (H, W, 3).
        evidence: (h, w), positive where something speaks for the class.
        longest: the longer side of what comes out, at most.
        region: the part of the picture that the evidence is of; all of it by default.
    """
    picture = _readable(np.asarray(_small(pixels, longest)) / 255)
    height, width = picture.shape[:2]
    left, top, right, bottom = region or (0, 0, pixels.shape[1], pixels.shape[0])
    rows = _between(top, bottom, height, pixels.shape[0])
    columns = _between(left, right, width, pixels.shape[1])
    strength = np.zeros((height, width))
    size = rows.stop - rows.start, columns.stop - columns.start
    strength[rows, columns] = strengthen(evidence, size)
    shown = (revealed(picture, strength) * 255).round().astype(np.uint8)
    return _uri(Image.fromarray(shown), quality=90)


def is_dark(pixels: Array) -> bool:
    """Whether a picture, uint8, is brightened where evidence is drawn on it."""
    return bool(pixels.mean() < 255 * MEAN)


def _readable(picture: Array) -> Array:
    """A dark picture, in [0, 1], with gamma as its mean would need it; one that is not as it is."""
    mean = max(float(picture.mean()), 1 / 255)
    return picture if mean >= MEAN else picture ** (math.log(MEAN) / math.log(mean))


def _between(start: float, stop: float, size: int, of: int) -> slice:
    """A part of a side of ``of`` pixels on one of ``size``; one pixel at least."""
    first = min(round(start * size / of), size - 1)
    return slice(first, max(first + 1, min(round(stop * size / of), size)))


def outline(mask: Array) -> str:
    """The border of a mask, bool (h, w), as the path of an SVG picture of that many pixels."""
    padded = np.pad(mask, 1)
    lines = []
    for axis, line in ((0, "M{0} {1}H{2}"), (1, "M{1} {0}V{2}")):
        changes = np.diff(padded, axis=axis).swapaxes(0, axis)[:, 1:-1]
        for at, row in enumerate(changes.tolist()):
            start = 0
            for on, run in itertools.groupby(row):
                stop = start + len(list(run))
                lines += [line.format(start, at, stop)] if on else []
                start = stop
    return "".join(lines)


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
