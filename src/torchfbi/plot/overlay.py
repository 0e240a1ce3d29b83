"""Pictures for the panels: the photo as the network saw it, and what speaks for a class in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from torchfbi.plot.style import Array, Theme

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation

DIM = 0.22
"""How bright a photo is where nothing speaks for the class."""

POWER = 0.35
"""Of the relative evidence: it has heavy tails, and more than the strongest spot is to be seen."""

SMOOTHING = 3 / 224
"""Of the drawn evidence, a Gaussian's standard deviation by the longer side: single pixels of it
would be seen as dots."""

RASTER = 448
"""The longer side, in pixels, of the pictures in the panels."""


def revealed(photo: Array, strength: Array) -> Array:
    """The photo in its own colours where something speaks for the class, dim and grey elsewhere.

    Args:
        photo: (H, W, 3) float in [0, 1].
        strength: (H, W) float in [0, 1]: how far each pixel is revealed.

    Returns:
        (H, W, 3) float in [0, 1].
    """
    shown: Array = DIM * _grey(photo) * (1 - strength[..., None]) + photo * strength[..., None]
    return shown


def overlay(photo: Array, strength: Array, theme: Theme) -> Array:
    """Where there is no photo to reveal: the theme's heat colours on a veiled picture.

    Args:
        photo: (H, W, 3) float in [0, 1].
        strength: (H, W) float in [0, 1]. At 0 only the veiled picture shows; from 0.5 on the
            colour covers it.

    Returns:
        (H, W, 3) float in [0, 1].
    """
    veiled = theme.veil[0] + theme.veil[1] * _grey(photo)
    opacity = np.minimum(2 * strength, 1)[..., None]
    painted: Array = veiled * (1 - opacity) + theme.heat(strength)[..., :3] * opacity
    return painted


def _grey(photo: Array) -> Array:
    """(H, W, 1): luma, as in ITU-R BT.601."""
    luma: Array = photo @ np.array([0.299, 0.587, 0.114])
    return luma[..., None]


def strengthen(magnitude: Array, size: tuple[int, int]) -> Array:
    """A map of evidence as the ``strength`` of a drawing on a raster.

    Fine maps are smoothed, the 99.5th percentile of what is not zero is full strength, and weak
    entries are raised.

    Args:
        magnitude: (h, w) float; what is negative counts as nothing.
        size: height and width of the raster.

    Returns:
        float in [0, 1] of that size, zero everywhere for an empty map.
    """
    magnitude = np.maximum(magnitude, 0)
    if not magnitude.any():
        return np.zeros(size)
    fine = min(magnitude.shape) >= 64
    if fine:
        sigma = SMOOTHING * max(magnitude.shape)
        magnitude = _smooth(_smooth(magnitude, sigma).T, sigma).T
    largest = np.quantile(magnitude[magnitude > 0], 0.995)
    relative = np.clip(magnitude / largest, 0, 1) ** POWER
    resample = Image.Resampling.BICUBIC if fine else Image.Resampling.NEAREST
    resized = Image.fromarray(relative.astype(np.float32)).resize(size[::-1], resample)
    result: Array = np.clip(np.asarray(resized), 0, 1)
    return result


def _smooth(values: Array, sigma: float) -> Array:
    """Gaussian smoothing along the rows of (h, w)."""
    distance = np.arange(values.shape[1])[:, None] - np.arange(values.shape[1])
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    smoothed: Array = values @ (weights / weights.sum(0))
    return smoothed


def signed_limit(values: Array) -> float:
    """The end of a signed scale: the 98th percentile of |values| where they are not zero.

    A higher one leaves nearly all pixels pale: signals have heavy tails. Of an even map, in which
    nothing stands out, it is twice the root mean square: so it gets a middle colour, not the
    strongest one everywhere.
    """
    inside = np.abs(values[values != 0])
    if not inside.size:
        return 1.0
    return float(max(np.quantile(inside, 0.98), 2 * np.sqrt(np.square(values).mean())))


def raster(explanation: Explanation, index: int) -> Array:
    """What the network saw of the photo, (H, W, 3) float in [0, 1]; plain grey without a photo.

    The shape has the proportions of the photo's region, and the longer side ``RASTER`` pixels.
    """
    rows, columns = explanation.values.shape[-2:]
    if not explanation.photos:
        return np.full((*_fitted(rows, columns), 3), 0.5)
    region = explanation.regions[index]
    height, width = _fitted(region.bottom - region.top, region.right - region.left)
    pixels = Image.fromarray(explanation.photos[index].pixels)
    coarse = max(region.bottom - region.top, region.right - region.left) < 64
    resample = Image.Resampling.NEAREST if coarse else Image.Resampling.LANCZOS
    left, top, right, bottom = region
    resized = pixels.resize((width, height), resample, box=(left, top, right, bottom))
    return np.asarray(resized) / 255.0


def _fitted(height: float, width: float) -> tuple[int, int]:
    scale = RASTER / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
