"""Holes filled from what lies around them, so that the holes themselves tell nothing (ROAD)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from torchfbi.errors import InputError


def impute(x: Tensor, removed: Tensor, tolerance: float = 3e-5) -> Tensor:
    """Linear imputation: each removed pixel is the weighted mean of its eight neighbours.

    Rong et al. 2022: direct neighbours weigh 1/6, diagonal ones 1/12, those beyond
    the image's edge nothing. The removed pixels' equations form one linear system, symmetric and
    positive definite, which is solved here by conjugate gradients on the grid itself, from a
    first guess that is solved on half of the resolution.

    Args:
        x: (N, C, H, W) float.
        removed: (N, H, W) bool; a pixel must be left in every image.
        tolerance: how far a pixel may be from the mean of its neighbours, as a share of the
            largest magnitude in ``x``. The default keeps the pixels themselves within about 1 %
            of it, the size of the noise.

    Returns:
        (N, C, H, W), ``x`` itself where nothing was removed.

    Raises:
        InputError: another shape, or an image of which nothing is left.
    """
    if removed.shape != (len(x), *x.shape[2:]):
        raise InputError(
            f"{tuple(removed.shape)} says which pixels are removed, the images are "
            f"{tuple(x.shape)}: give (N, H, W)."
        )
    if removed.flatten(1).all(1).any():
        raise InputError("all pixels of an image are removed: nothing is left to impute from.")
    x = x.detach()
    filled = x.clone()
    for image, holes, result in zip(x, removed, filled, strict=True):  # each until it is solved
        precise = image.to(torch.promote_types(x.dtype, torch.float32))
        solved = _solve(precise, holes, tolerance * precise.abs().amax().item())
        result.copy_(torch.where(holes, solved.to(x.dtype), image))
    return filled


def _solve(x: Tensor, removed: Tensor, limit: float) -> Tensor:
    """The imputed image (C, H, W); ``removed`` is (H, W)."""
    # Conjugate gradients on D v - W v = 0 at the removed pixels, others held: D is the sum of
    # the weights within the image, W v the weighted sum over the neighbours.
    total = _neighbours(torch.ones_like(x[:1]))
    v = torch.where(removed, _first_guess(x, removed, limit), x)
    residual = torch.where(removed, _neighbours(v) - total * v, 0.0)
    direction, squared = residual, _dot(residual, residual)
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(4 * sum(x.shape[1:])):  # far more than it takes to cross the image
        if residual.abs().amax() <= limit:
            break
        image = torch.where(removed, total * direction - _neighbours(direction), 0.0)
        step = squared / _dot(direction, image).clamp(min=tiny)
        v, residual = v + step * direction, residual - step * image
        previous, squared = squared, _dot(residual, residual)
        direction = residual + squared / previous.clamp(min=tiny) * direction
    return v


def _first_guess(x: Tensor, removed: Tensor, limit: float) -> Tensor:
    """The solution on half of the resolution: conjugate gradients alone spread values slowly."""
    kept = (~removed).to(x)
    if min(x.shape[1:]) < 8:
        return (x * kept).sum((1, 2), keepdim=True) / kept.sum()
    share = avg_pool2d(kept[None], 2, ceil_mode=True)
    mean = avg_pool2d(x * kept, 2, ceil_mode=True) / torch.where(share > 0, share, 1.0)
    coarse = _solve(mean, share[0] == 0, limit)
    return interpolate(coarse[None], x.shape[1:], mode="bilinear")[0]


def _neighbours(v: Tensor) -> Tensor:
    """The weighted sum over the neighbours, zero beyond the edge: 1 2 1 along both axes over 12.

    The pixel itself counts as a neighbour, which takes nothing from D v - W v. Sums of slices are
    several times faster on a CPU than a convolution of one channel.
    """
    around = pad(v, (1, 1, 1, 1))
    columns = around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:]
    return (columns[..., :-2] + 2 * columns[..., 1:-1] + columns[..., 2:]) / 12


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), keepdim=True)
