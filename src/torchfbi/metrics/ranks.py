"""Ranks: of values that tie, of two maps against each other, of pixels to be removed."""

from __future__ import annotations

import torch
from torch import Tensor


def average_ranks(values: Tensor) -> Tensor:
    """The rank of each entry in its row, 1 for the smallest; tied entries share their mean rank.

    Args:
        values: (N, P).

    Returns:
        (N, P) float64.
    """
    values = values.contiguous()
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    return (below + up_to + 1).double() / 2


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of each row: Pearson's correlation of the average ranks.

    Args:
        a, b: (N, P).

    Returns:
        (N,) float64 in [-1, 1], NaN where a row of either is constant.
    """
    x, y = (ranks - ranks.mean(1, keepdim=True) for ranks in (average_ranks(a), average_ranks(b)))
    norms = ((x * x).sum(1) * (y * y).sum(1)).sqrt()
    return ((x * y).sum(1) / norms).clamp(-1, 1)


def order(maps: Tensor, seed: int) -> Tensor:
    """Each pixel's place in the order of its map, 0 for the largest value.

    Ties are broken at random: by one permutation of the pixels for all samples, so that no
    answer depends on a sample's place in the batch.

    Args:
        maps: (N, H, W).
        seed: of the permutation.

    Returns:
        (N, H, W) int64, a permutation of 0 ... H W - 1 for each sample.
    """
    flat = maps.flatten(1)
    shuffle = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    sorted_pixels = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(flat.shape[1]).expand_as(sorted_pixels)
    return torch.empty_like(sorted_pixels).scatter_(1, sorted_pixels, places).view(maps.shape)
