"""Where the evidence of an image lies, in a few numbers, and how far apart two such places are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from torchfbi.errors import FileFormatError
from torchfbi.models.images import Array

BINS = 32
"""Into so many strips the picture is cut along each axis."""

RIM = 0.1
"""Of a side: what lies closer to the picture's edge lies at its rim."""


def support_map(row: dict[str, Any]) -> Array:
    """The support of a row, bool (H, W).

    Raises:
        FileFormatError: it is no picture, so these are not our rows.
    """
    try:
        return np.asarray(Image.open(io.BytesIO(row["support"]["bytes"])).convert("1"))
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        raise FileFormatError(f"row {row['index']}: its support is damaged: {error}") from error


def seen(row: dict[str, Any]) -> Array:
    """What the network saw of a photo, as a JPEG kept it, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))


def evidence_map(row: dict[str, Any]) -> Array:
    """What speaks for the class at each pixel: |values| summed over the channels on the support,
    zero elsewhere, float64 (H, W).

    Raises:
        FileFormatError: support and values do not fit, so these are not our rows.
    """
    support = support_map(row)
    height, width = support.shape
    values = np.asarray(row["values"], dtype=np.float64)
    if values.ndim != 1 or not len(values) or len(values) % (height * width):
        raise FileFormatError(f"row {row['index']}: its values do not fit its support.")
    return np.abs(values).reshape(-1, height, width).sum(0) * support


def profile(evidence: Array) -> Array | None:
    """The place of the evidence: of each axis, the share that lies before the end of each strip.

    Args:
        evidence: (H, W) >= 0.

    Returns:
        float32 (2, BINS) in [0, 1], rising: from left to right, and from top to bottom. None where
        there is no evidence.
    """
    total = evidence.sum()
    if not total > 0:
        return None
    strips = []
    for axis in (0, 1):
        along = evidence.sum(axis).cumsum() / total
        ends = np.arange(1, BINS + 1) / BINS * len(along)
        strips.append(np.interp(ends, np.arange(len(along) + 1), np.concatenate([[0], along])))
    return np.array(strips, dtype=np.float32)


def apart(profiles: Array, reference: Array) -> Array:
    """How far the evidence would have to be moved, in sides of the picture.

    The earth mover's distance between two distributions on a line is the area between their
    cumulative shares (Vallender 1974); here it is taken along each axis and added up: a lower
    bound of the distance in the plane where steps go along the axes. Unlike an overlap of maps it
    knows near from far: a shift by a strip costs 1/32, one from corner to corner nearly 2.

    Args:
        profiles: (N, 2, BINS).
        reference: (2, BINS).

    Returns:
        (N,) float in [0, 2].
    """
    return np.abs(profiles - reference).mean(-1).sum(-1)


def middle(profiles: Array) -> Array:
    """The place from which a set of places is least far in sum: the median of each share. A few
    strays do not move it, as they would a mean."""
    return np.median(profiles, axis=0)


def centre(place: Array) -> tuple[float, float]:
    """The mean place along and down the picture, in sides from the upper left corner."""
    x, y = 1 - place.mean(-1) + 0.5 / BINS
    return float(x), float(y)


def rim_share(evidence: Array) -> float:
    """The share of the evidence at the picture's rim. Evenly spread evidence gives 0.36."""
    height, width = evidence.shape
    rows, columns = round(RIM * height), round(RIM * width)
    inside = evidence[rows : height - rows, columns : width - columns].sum()
    return float(1 - inside / evidence.sum())
