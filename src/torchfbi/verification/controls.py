"""What a part has to beat: its shape elsewhere, and orders that know nothing of the network."""

from __future__ import annotations

from itertools import product
from math import sqrt

import torch
from torch import Tensor

from torchfbi.verification.grid import Grid


def elsewhere(patches: Tensor) -> Tensor:
    """The same patches moved by half of the image along one axis or several, whichever way they
    meet themselves least; what leaves the image on one side comes in on the other.

    Args:
        patches: (*shape) bool.
    """
    axes = tuple(range(patches.ndim))
    moved = [
        patches.roll(
            tuple(far * size // 2 for far, size in zip(way, patches.shape, strict=True)), axes
        )
        for way in product((0, 1), repeat=patches.ndim)
        if any(way)
    ]
    return min(moved, key=lambda other: int((other & patches).sum()))


def likeness(values: Tensor) -> float:
    """How much more alike the values of neighbours are than shuffled ones, in standard deviations.

    The correlation of neighbours (Moran 1950) times the root of how many pairs there are, which
    shuffled at random has mean 0 and standard deviation 1, but for terms in one over the number of
    values; 0 where all are equal.

    Args:
        values: (*shape) floating point.
    """
    total, pairs = 0.0, 0
    centred = values.double() - values.double().mean()
    for axis, size in enumerate(values.shape):
        near = centred.narrow(axis, 0, size - 1) * centred.narrow(axis, 1, size - 1)
        total, pairs = total + near.sum().item(), pairs + near.numel()
    spread = centred.square().mean().item()
    return total / (spread * sqrt(pairs)) if spread > 0 else 0.0


def edges(image: Tensor) -> list[Tensor]:
    """How much the image changes at each pixel: where its edges are, of all channels and of their
    mean, which sees no change of colour alone.

    The root of the sum over axes and channels of the squared central differences.

    Args:
        image: (1, C, ...).

    Returns:
        Two maps (...), float64 >= 0.
    """
    return [_slope(image.double()), _slope(image.double().mean(1, keepdim=True))]


def _slope(image: Tensor) -> Tensor:
    total = torch.zeros_like(image[0, 0])
    for axis in range(2, image.ndim):
        if image.shape[axis] > 1:
            (slope,) = torch.gradient(image, dim=axis)
            total += slope.square().sum((0, 1))
    return total.sqrt()


def centre(grid: Grid) -> Tensor:
    """How near each pixel is to the image's centre, (*sizes) float64 <= 0."""
    distance = torch.zeros(grid.sizes, dtype=torch.float64)
    for axis, size in enumerate(grid.sizes):
        along = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / size
        distance += along.square().view([-1 if a == axis else 1 for a in range(len(grid.sizes))])
    return -distance
