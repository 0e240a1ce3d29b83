"""Pictures for the panels: the photo as the network saw it, and the support painted over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from torchfbi.plot.style import Array, Theme

if TYPE_CHECKING:
    from torchfbi.explanation import Explanation

FAINTEST = 0.12
"""The strength at which every pixel of the support is drawn at least: all of it is to be seen."""

RASTER = 448
"""The longer side, in pixels, of the pictures in the panels."""


def overlay(photo: Array, strength: Array, theme: Theme) -> Array:
    """The photo, grey and veiled, with the support on it in the theme's heat colours.

    Args:
        photo: (H, W, 3) float in [0, 1].
        strength: (H, W) float in [0, 1]. At 0 only the veiled photo shows; from 0.5 on the
            colour covers it.

    Returns:
        (H, W, 3) float in [0, 1].
    """
    grey = photo @ np.array([0.299, 0.587, 0.114])  # luma, as in ITU-R BT.601
    veiled = theme.veil[0] + theme.veil[1] * grey[..., None]
    opacity = np.minimum(2 * strength, 1)[..., None]
    painted: Array = veiled * (1 - opacity) + theme.heat(strength)[..., :3] * opacity
    return painted


def strengthen(magnitude: Array, size: tuple[int, int]) -> Array:
    """A map of magnitudes as an overlay's ``strength`` on a raster.

    Weak entries are raised (power 0.6), and fine maps are smoothed a little: single pixels of
    a 224-pixel map would be too small to see.

    Args:
        magnitude: (h, w) float >= 0.
        size: height and width of the raster.

    Returns:
        float in [0, 1] of that size, zero everywhere for an empty map.
    """
    inside = magnitude[magnitude > 0]
    if inside.size == 0:
        return np.zeros(size)
    relative = np.clip(magnitude / np.quantile(inside, 0.995), 0, 1) ** 0.6
    fine = min(magnitude.shape) >= 64
    if fine:
        relative = _smooth(
            _smooth(relative, max(magnitude.shape) / 224).T, max(magnitude.shape) / 224
        ).T
    resample = Image.Resampling.BICUBIC if fine else Image.Resampling.NEAREST
    resized = Image.fromarray(relative.astype(np.float32)).resize(size[::-1], resample)
    result: Array = np.clip(np.asarray(resized) / relative.max(), 0, 1)
    mask = Image.fromarray(magnitude > 0).resize(size[::-1], Image.Resampling.NEAREST)
    return np.maximum(result, FAINTEST * np.asarray(mask))


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
