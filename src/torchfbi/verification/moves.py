"""How far a map moves when its image changes so little that nobody would call it another one.

Only the method that made a map can say that, so it is asked again about the changed images.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.verification.grid import Grid
from torchfbi.verification.rival import TENTH

NOISE = 0.1
"""The standard deviation of the noise, in those of the image: some 6 of 255 grey levels."""

SHIFT = 5 / 224
"""How far the image is moved along each axis, in its sides: 5 of 224 pixels, which no stride
divides."""


class Again(NamedTuple):
    """What the method says of the changed images.

    Args:
        noise: its map of the image with noise, (*sizes).
        shift: its map of the moved image, (*sizes), moved as that is.
    """

    noise: Tensor
    shift: Tensor


def noisy(images: Tensor, seed: int) -> Tensor:
    """Images with Gaussian noise, the same for each sample, (N, C, ...) as before."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape[1:], generator=generator, dtype=torch.float64)
    spread = images.double().flatten(1).std(1, correction=0)
    return images + (NOISE * spread.view(-1, *[1] * noise.ndim) * noise.to(spread)).to(images)


def shifted(images: Tensor) -> Tensor:
    """Images moved on along each of their axes; the edge is continued, (N, C, ...) as before."""
    return _moved(images, [-step for step in steps(images.shape[2:])])


def steps(sizes: Sequence[int]) -> list[int]:
    """How many pixels an image of these sizes is moved along each axis; one of under four
    pixels stays where it is."""
    side = prod(sizes) ** (1 / len(sizes))
    return [min(max(1, round(SHIFT * side)), size // 4) for size in sizes]


def staying(grid: Grid, evidence: Tensor, again: Again) -> tuple[float, float]:
    """The share of the tenth of the patches that a map names first which it names first again.

    By chance it would be a tenth.

    Args:
        grid: the patches.
        evidence: the map, (*grid.sizes).
        again: the maps of the changed images.

    Returns:
        With noise; and moved, among the patches that are whole in both images.
    """
    generator = torch.Generator().manual_seed(0)
    step = steps(grid.sizes)
    back = _moved(again.shift, step)
    own, noise, shift = (grid.order(each, generator) for each in (evidence, again.noise, back))
    both = [
        slice(max(1, (size - far) // grid.side)) for size, far in zip(grid.sizes, step, strict=True)
    ]
    return _shared(own, noise), _shared(own[tuple(both)], shift[tuple(both)])


def _shared(one: Tensor, other: Tensor) -> float:
    """Of the first tenth of one order in that of another, (*shape) without ties."""
    count = max(1, round(TENTH * one.numel()))
    first, again = (order.flatten().argsort()[:count] for order in (one, other))
    return torch.isin(first, again).double().mean().item()


def _moved(values: Tensor, by: Sequence[int]) -> Tensor:
    """Each of the last axes read so many places further on, or back; the edge is continued."""
    for axis, step in enumerate(by, start=values.ndim - len(by)):
        size = values.shape[axis]
        places = (torch.arange(size, device=values.device) + step).clamp(0, size - 1)
        values = values.index_select(axis, places)
    return values
