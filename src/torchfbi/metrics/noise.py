"""How noisy a map looks: how rough, how much of it is fine grain, how much of it stands alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from torchfbi.metrics.checks import checked_maps

COARSE = 0.25
"""Cycles a pixel, half of the highest that a row of pixels can hold: faster is grain."""


def total_variation(maps: Tensor) -> Tensor:
    """Roughness: the differences between neighbours, relative to the map.

    Rudin, Osher and Fatemi 1992, anisotropic: the sum of |differences| down and to the right over
    the sum of the map. 0 where all pixels are equal, 4 where every pixel stands alone, between
    zeros; it does not change with the map's scale.

    Args:
        maps: (N, H, W), >= 0.

    Returns:
        (N,) float64 in [0, 4]; NaN for an empty map.

    Raises:
        InputError: maps of another shape or with values that no map has.
    """
    values = checked_maps(maps)
    down, right = values.diff(dim=1).abs(), values.diff(dim=2).abs()
    return (down.sum((1, 2)) + right.sum((1, 2))) / values.sum((1, 2))


def fine_grain(maps: Tensor) -> Tensor:
    """The share of a map's energy in spatial frequencies above ``COARSE``.

    Parseval's theorem: the squared magnitudes of the discrete Fourier transform of the map less
    its mean, summed beyond that radius, over all of them. About .8 for independent pixels, of
    whose frequencies so many lie beyond; 0 for a map as smooth as a photo out of focus.

    Args:
        maps: (N, H, W), >= 0.

    Returns:
        (N,) float64 in [0, 1]; NaN for a constant map, as an empty one is.

    Raises:
        InputError: maps of another shape or with values that no map has.
    """
    values = checked_maps(maps)
    constant = values.amax((1, 2)) == values.amin((1, 2))
    z = values - values.mean((1, 2), keepdim=True)
    energy = torch.fft.fft2(z).abs().square() if len(z) else z  # MKL refuses no maps
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in values.shape[1:])
    beyond = (rows[:, None].square() + columns.square()).sqrt() > COARSE
    share = (energy * beyond).sum((1, 2)) / energy.sum((1, 2))
    return torch.where(constant, torch.nan, share)


def isolated(maps: Tensor, share: float = 0.05) -> Tensor:
    """Specks: the share of a map's strongest pixels that touch no other one of them.

    Args:
        maps: (N, H, W), >= 0.
        share: how many of the pixels are the strongest, in (0, 1]; where fewer are not zero,
            these are. Pixels as strong as the last one count as well.

    Returns:
        (N,) float64 in [0, 1], the share of them without any of the eight neighbours among them;
        NaN for an empty map.

    Raises:
        InputError: maps of another shape or with values that no map has.
    """
    values = checked_maps(maps)
    count = max(1, round(share * values[0].numel())) if len(values) else 1
    weakest = values.flatten(1).topk(count, dim=1).values[:, -1, None, None]
    strong = ((values >= weakest) & (values > 0)).double()[:, None]
    others = F.conv2d(strong, values.new_ones(1, 1, 3, 3), padding=1) - 1
    alone = strong * (others < 0.5)
    return alone.sum((1, 2, 3)) / strong.sum((1, 2, 3))
