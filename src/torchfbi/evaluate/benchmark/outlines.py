"""Objects in a photo as masks of its pixels: from boxes, polygons and run lengths.

Coordinates are COCO's: (0, 0) is the upper left corner of the photo, (x, y) = (1, 1) the lower
right corner of its first pixel. A pixel belongs to an object that contains its centre. What
reaches beyond the photo is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from torchfbi.errors import FileFormatError

Mask = npt.NDArray[np.bool_]

_FARTHEST = 1e6  # pixels: what lies farther out is no coordinate in a photo


class Outlined(NamedTuple):
    """An annotated object.

    Args:
        category: what it is called; None where the annotation does not say.
        mask: its pixels, bool (H, W) of the photo.
    """

    category: str | None
    mask: Mask


Reader = Callable[[Path, tuple[int, int]], list[Outlined]]
"""From a picture's path and its (height, width) to the objects annotated in it, none if it is not
annotated. It raises FileFormatError or ImageError where that cannot be read."""


def box(left: Any, top: Any, right: Any, bottom: Any, shape: tuple[int, int]) -> Mask:
    """The pixels whose centres lie in a box.

    Raises:
        FileFormatError: a coordinate is no number, the box is empty or lies outside of the photo.
    """
    numbers = coordinates([left, top, right, bottom])
    columns, rows = (slice(*_pixels(*numbers[i::2])) for i in (0, 1))
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return not_empty(mask, f"the box {numbers}")


def polygon(points: Any, shape: tuple[int, int]) -> Mask:
    """The pixels whose centres lie in a polygon x0, y0, x1, y1, ... by the even-odd rule.

    Raises:
        FileFormatError: the points are not three or more pairs of numbers, or no pixel is inside.
    """
    numbers = coordinates(points)
    if len(numbers) < 6 or len(numbers) % 2:
        raise FileFormatError(f"a polygon has {len(numbers)} numbers, not 6, 8, 10, ...")
    x, y = np.array(numbers).reshape(-1, 2).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    mask = np.zeros(shape, bool)
    for row in range(*slice(*_pixels(y.min(), y.max())).indices(shape[0])):
        centre = row + 0.5
        crossing = (y <= centre) != (next_y <= centre)
        x0, y0, x1, y1 = (ends[crossing] for ends in (x, y, next_x, next_y))
        left = x0 + (centre - y0) * (x1 - x0) / (y1 - y0)
        # A crossing turns inside and outside round for all pixel centres to its right.
        first = np.clip(np.ceil(left - 0.5), 0, shape[1]).astype(int)
        turns = np.bincount(first, minlength=shape[1] + 1)[: shape[1]]
        mask[row] = turns.cumsum() % 2 == 1
    return not_empty(mask, "a polygon")


def run_lengths(counts: Any, size: Any, shape: tuple[int, int]) -> Mask:
    """A mask from its run lengths: so many pixels outside, so many inside, and so on in turn,
    down the first column, then the second.

    Raises:
        FileFormatError: they are no such list, or not for a photo of this shape.
    """
    if isinstance(counts, str):
        raise FileFormatError(
            "its run lengths are compressed: convert them to lists of numbers or to polygons "
            "(pycocotools.mask.decode reads them)."
        )
    if size != list(shape):
        raise FileFormatError(
            f"its run lengths are for {_short(size)} pixels, the photo has {shape}."
        )
    whole = isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts)
    if not whole or sum(counts) != math.prod(shape):
        raise FileFormatError("its run lengths do not add up to the pixels of the photo.")
    inside = np.arange(len(counts)) % 2 == 1
    mask = np.repeat(inside, np.array(counts, int)).reshape(shape[::-1]).T
    return not_empty(mask, "a mask of run lengths")


def coordinates(values: Any) -> list[float]:
    """A list of numbers, as it is.

    Raises:
        FileFormatError: it is no list, or holds something else, NaN, or what is out of any photo.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise FileFormatError(f"{_short(values)} is no list of coordinates.")
    for value in values:
        if type(value) not in (int, float) or not abs(value) <= _FARTHEST:
            raise FileFormatError(f"{_short(value)} is no coordinate.")
    return list(values)


def not_empty(mask: Mask, what: str) -> Mask:
    """The mask.

    Raises:
        FileFormatError: none of its pixels is True.
    """
    if not mask.any():
        raise FileFormatError(f"{what} covers no pixel of the photo.")
    return mask


def same_size(width: Any, height: Any, shape: tuple[int, int]) -> None:
    """Check the size of the photo that an annotation states.

    Raises:
        FileFormatError: the photo has another one, so that the coordinates would not fit.
    """
    if (height, width) != shape:
        raise FileFormatError(
            f"it was annotated as {_short(width)} x {_short(height)} pixels, but has {shape[1]} x "
            f"{shape[0]}: annotate the picture upright and in the size it has now."
        )


def _short(value: Any) -> str:
    """Whatever a file may hold, in a message."""
    return f"{value!r:.40}"


def _pixels(start: float, stop: float) -> tuple[int, int]:
    """The first pixel whose centre is at or behind ``start``, and the first behind ``stop``."""
    return max(math.ceil(start - 0.5), 0), max(math.ceil(stop - 0.5), 0)
