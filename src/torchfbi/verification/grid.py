"""The image in small whole patches: what is kept or removed, so that no scattered dots count."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from torchfbi.verification.blur import blur

PATCHES = {1: 64, 2: 28**2, 3: 28**2}
"""About how many patches there are, by the number of the image's dimensions. Of 224 x 224 pixels
a patch has 8 x 8."""

SMOOTHING = 1 / 8
"""The standard deviation of the Gaussian that smooths a map before it orders the patches, in sides
of the image: 28 of 224 pixels."""


@dataclass(frozen=True)
class Grid:
    """Patches of equal side; the last ones of an axis may be cut off.

    Args:
        sizes: of the image, (...) without channels.
        side: of a patch, in pixels, >= 1.
    """

    sizes: tuple[int, ...]
    side: int

    @classmethod
    def of(cls, sizes: tuple[int, ...]) -> Grid:
        """The grid for an image of these sizes."""
        each = (prod(sizes) / PATCHES[len(sizes)]) ** (1 / len(sizes))
        return cls(sizes, max(1, round(each)))

    @property
    def shape(self) -> tuple[int, ...]:
        """How many patches there are along each axis."""
        return tuple(-(-size // self.side) for size in self.sizes)

    @property
    def count(self) -> int:
        """How many patches there are."""
        return prod(self.shape)

    def pixels(self, patches: Tensor) -> Tensor:
        """Whether each pixel lies in one of the patches.

        Args:
            patches: (M, *shape) bool.

        Returns:
            (M, *sizes) bool.
        """
        for axis, size in enumerate(self.sizes, start=1):
            patches = patches.repeat_interleave(self.side, axis).narrow(axis, 0, size)
        return patches

    def means(self, values: Tensor) -> Tensor:
        """The mean of the values in each patch.

        Args:
            values: (*sizes) floating point.

        Returns:
            (*shape).
        """
        for axis, size in enumerate(self.sizes):
            starts = range(0, size, self.side)
            parts = [values.narrow(axis, s, min(self.side, size - s)) for s in starts]
            values = torch.stack([part.mean(axis) for part in parts], axis)
        return values

    def order(self, evidence: Tensor, generator: torch.Generator) -> Tensor:
        """The place of each patch when they are ordered by a map, the most evidence first.

        The map is smoothed, so that a peak draws its surroundings with it: networks recognise
        connected pieces, not crumbs. Equal patches are ordered at random.

        Args:
            evidence: (*sizes) finite, signed; larger speaks more for the class.
            generator: of the random order.

        Returns:
            (*shape) int64, each of 0 to ``count - 1`` once.
        """
        coarse = self.means(evidence.double())
        scores = blur(coarse[None, None], SMOOTHING * self.count ** (1 / coarse.ndim)).flatten()
        # What differs by rounding alone is equal.
        scale = scores.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        scores = (scores / scale * 2**40).round()
        shuffled = torch.randperm(self.count, generator=generator)
        ranked = shuffled[scores[shuffled].argsort(descending=True, stable=True)]
        places = torch.empty_like(ranked).scatter_(0, ranked, torch.arange(self.count))
        return places.view(self.shape)
