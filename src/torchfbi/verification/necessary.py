"""The smallest part of an image found whose removal loses the class."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from torchfbi.verification.occlusion import Occlusion
from torchfbi.verification.sufficient import Found

FIRST, SHORTER, HALF, BETWEEN = 0.2, (0.1, 0.05), 0.5, (0.33,)
"""Shares of the patches that are removed, those with the most evidence first: the first one; the
shorter ones as long as they lose the class where it does; else half, and what is between unless
even without half the class is kept."""


class Removed(NamedTuple):
    """What removing parts of the image does.

    Args:
        necessary: the smallest part whose removal loses the class under every removal, and what
            the network says without it; None where none was found.
        rest: what is left when half of the image is removed, and what the network says of it; None
            where that was not asked.
    """

    necessary: Found | None
    rest: Found | None

    @property
    def redundant(self) -> bool:
        """Whether even without half of the image the class is kept under every removal: it is
        there twice."""
        return self.rest is not None and bool(self.rest.prediction.kept.item())


def remove(occlusion: Occlusion, order: Tensor, sufficient: Found) -> Removed:
    """Remove what has the most evidence, and the sufficient part.

    Args:
        occlusion: the image, the class, the network.
        order: the place of each patch, (*grid.shape) int64.
        sufficient: patches that keep the class.
    """
    removals = occlusion.hardest(sufficient.prediction)[::-1]
    tried: list[Found] = []
    rest = None

    def first(share: float) -> Tensor:
        return order < share * order.numel()

    def loses(part: Tensor) -> bool:
        tried.append(Found(part, occlusion.losing(~part[None], removals)))
        return bool(tried[-1].prediction.lost.item())

    loses(sufficient.patches)
    lengths: tuple[float, ...] = SHORTER
    if not loses(first(FIRST)):
        half = first(HALF)
        without = occlusion.keep(~half[None])
        tried.append(Found(half, without))
        rest = Found(~half, without)
        lengths = () if without.kept.item() else BETWEEN
    for length in lengths:
        if not loses(first(length)):
            break
    losing = [found for found in tried if found.prediction.lost.item()]
    smallest = min(losing, key=lambda found: int(found.patches.sum()), default=None)
    return Removed(smallest, rest)
