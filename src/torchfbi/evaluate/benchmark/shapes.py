"""Synthetic images whose evidence is known by construction: one shape decides, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Shape = Callable[[Floats, Floats], Mask]
"""Whether points lie inside of a shape, from their x and y, -1 to 1."""

SIDE = 48
"""Height and width of the images in pixels."""

_Y, _X = np.mgrid[:SIDE, :SIDE] + 0.5

CLASSES: dict[str, Shape] = {
    "disc": lambda x, y: x**2 + y**2 < 1,
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.4),
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.85,
    "triangle": lambda x, y: (y < 0.85) & (y > 2 * abs(x) - 0.95),
    "plus": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    "cross": lambda x, y: (abs(abs(x) - abs(y)) < 0.4) & (np.maximum(abs(x), abs(y)) < 0.9),
}
"""The shapes that decide."""

DISTRACTORS: tuple[Shape, ...] = (
    lambda x, y: (abs(x) < 0.3) & (abs(y) < 1),
    lambda x, y: (abs(y) < 0.3) & (abs(x) < 1),
    lambda x, y: (abs(x - y) < 0.4) & (np.maximum(abs(x), abs(y)) < 0.9),
    lambda x, y: (np.maximum(abs(x), abs(y)) < 0.85) & ((x < -0.3) | (y > 0.3)),
)
"""Bars and an angle, of the same size and colours: they stand in images of every class."""

NAMES = ("nothing", *CLASSES)
"""Class 0 is the image without a shape that decides, so that removing one has a right answer."""


class Sample(NamedTuple):
    """A synthetic image.

    Args:
        picture: uint8 (SIDE, SIDE, 3).
        bare: the same with the background where the shape was; equal to it in class 0.
        mask: the pixels of the shape that decides, bool (SIDE, SIDE); all False in class 0.
        target: its class, an index of ``NAMES``.
    """

    picture: npt.NDArray[np.uint8]
    bare: npt.NDArray[np.uint8]
    mask: Mask
    target: int


def sample(rng: np.random.Generator, target: int) -> Sample:
    """Draw an image of a class: a background, a few distractors, and the class's shape.

    Nothing but the shape depends on the class. Sizes, places and colours are drawn alike for it
    and for the distractors, and none touches another.

    Args:
        rng: every draw comes from it.
        target: an index of ``NAMES``.
    """
    bare = _background(rng)
    taken: list[tuple[float, float, float]] = []
    shape = CLASSES.get(NAMES[target])
    mask = np.zeros((SIDE, SIDE), bool) if shape is None else _place(rng, shape, taken)
    colour = _colour(rng)
    distractors = rng.integers(1, 4) + (shape is None)  # the number of things tells nothing
    for index in rng.integers(len(DISTRACTORS), size=distractors):
        bare[_place(rng, DISTRACTORS[index], taken)] = _colour(rng)
    picture = np.where(mask[..., None], colour, bare)
    return Sample(picture.astype(np.uint8), bare.astype(np.uint8), mask, target)


def _background(rng: np.random.Generator) -> Floats:
    """A smooth gradient between four random colours, with grain."""
    corners = rng.uniform(90, 166, (2, 2, 3))
    t = np.linspace(0, 1, SIDE)
    ends = np.stack([1 - t, t])
    smooth = np.einsum("iy,jx,ijc->yxc", ends, ends, corners)
    return np.clip(smooth + rng.normal(scale=10, size=smooth.shape), 60, 195)


def _colour(rng: np.random.Generator) -> Floats:
    """Brighter or darker than any background, in each channel."""
    return rng.choice([0, 225], 3) + rng.uniform(0, 30, 3)


def _place(rng: np.random.Generator, shape: Shape, taken: list[tuple[float, float, float]]) -> Mask:
    """A shape of random size where nothing stands yet; nowhere if no such place is found."""
    for _ in range(50):
        radius = rng.uniform(5.5, 8)
        row, column = rng.uniform(radius + 1, SIDE - radius - 1, 2)
        if all(max(abs(row - r), abs(column - c)) > radius + size + 1 for r, c, size in taken):
            taken.append((row, column, radius))
            return shape((_X - column) / radius, (_Y - row) / radius)
    return np.zeros((SIDE, SIDE), bool)
