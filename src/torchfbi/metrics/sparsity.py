"""How much of the image the map takes, how unevenly, and how coherently."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.metrics.checks import checked_maps


def support_fraction(maps: Tensor) -> Tensor:
    """The share of the pixels that are not zero: the l0 norm over H W.

    Args:
        maps: (N, H, W), >= 0.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        InputError: maps of another shape or with values that no map has.
    """
    return (checked_maps(maps) > 0).double().mean((1, 2))


def gini(maps: Tensor) -> Tensor:
    """The Gini index: 0 where all pixels are equal, 1 - 1 / (H W) where one pixel has it all.

    Hurley & Rickard 2009, for attributions Chalasani et al. 2020. With the
    P values c in ascending order, sum_k (2 k - P - 1) c_k / (P sum_k c_k).

    Args:
        maps: (N, H, W), >= 0.

    Returns:
        (N,) float64 in [0, 1); NaN for an empty map.

    Raises:
        InputError: maps of another shape or with values that no map has.
    """
    ordered = checked_maps(maps).flatten(1).sort(1).values
    pixels = ordered.shape[1]
    weights = 2 * torch.arange(1, pixels + 1, dtype=torch.float64) - pixels - 1
    return ((ordered * weights).sum(1) / (pixels * ordered.sum(1))).clamp(min=0)


def morans_i(maps: Tensor) -> Tensor:
    """Spatial coherence: how alike neighbouring pixels are.

    Moran 1950 with the four neighbours at weight 1. With z the map less its mean and E the pairs
    of neighbours, (sum over pairs of z_i z_j / E) / (sum over pixels of z^2 / P). Near 1 where
    the map is smooth, -1 for a checkerboard, -1 / (P - 1) in expectation for independent pixels.

    Args:
        maps: (N, H, W), >= 0.

    Returns:
        (N,) float64; NaN for a constant map, as an empty one is.

    Raises:
        InputError: maps of another shape or with values that no map has.
    """
    values = checked_maps(maps)
    z = values - values.mean((1, 2), keepdim=True)
    down, right = z[:, 1:] * z[:, :-1], z[:, :, 1:] * z[:, :, :-1]
    pairs = down[0].numel() + right[0].numel() if len(z) else 0
    covariance = (down.sum((1, 2)) + right.sum((1, 2))) / pairs if pairs else z.new_zeros(len(z))
    constant = values.amax((1, 2)) == values.amin((1, 2))
    return torch.where(constant, torch.nan, covariance / (z * z).mean((1, 2)))
