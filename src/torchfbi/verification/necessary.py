"""The smallest part of an image found whose removal loses the class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.verification.occlusion import Occlusion, Prediction, joined
from torchfbi.verification.sufficient import Found

FIRST, SHORTER, LONGER = 0.2, (0.05, 0.1), (0.33, 0.5)
"""Shares of the patches that are removed, those with the most evidence first: the first one, and
depending on what it does the shorter or the longer ones."""


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


def remove(occlusion: Occlusion, order: Tensor, sufficient: Tensor) -> Removed:
    """Remove what has the most evidence, and the sufficient part.

    Args:
        occlusion: the image, the class, the network.
        order: the place of each patch, (*grid.shape) int64.
        sufficient: patches that keep the class, (*grid.shape) bool.
    """
    parts = torch.stack([order < FIRST * order.numel(), sufficient])
    without = occlusion.keep(~parts)
    lengths = SHORTER if _lost(without)[0] else LONGER
    more = torch.stack([order < length * order.numel() for length in lengths])
    again = occlusion.keep(~more)
    parts = torch.cat([parts, more])
    prediction = joined(without, again)
    sizes = parts.flatten(1).sum(1)
    losing = _lost(prediction).nonzero()[:, 0]
    necessary = None
    if len(losing):
        best = int(losing[sizes[losing].argmin()])
        necessary = Found(parts[best], prediction.one(best))
    rest = Found(~parts[-1], prediction.one(len(parts) - 1)) if lengths is LONGER else None
    return Removed(necessary, rest)


def _lost(prediction: Prediction) -> Tensor:
    """Whether the class is lost under every removal, (M,) bool."""
    return (prediction.margin <= 0).all(0)
