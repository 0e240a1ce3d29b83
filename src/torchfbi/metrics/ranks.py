"""Ranks: of values that tie, and of two maps against each other."""

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
