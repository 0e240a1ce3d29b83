"""Evidence: how much of the answer each place of a feature, and each pixel, speaks for.

Where all signal passes through one tensor, signal times activation, summed over the maps, says
how much of the seeded logits each of its positions carries, with its sign (Montavon et al. 2019
call the same the relevance). A network has such tensors at several resolutions, and none tells
everything: coarse ones know what they see but not where, fine ones where but not what. So a
pixel's evidence is the sum of what all resolutions say of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchfbi.method.settings import Settings

POWER = 3
"""Of the relative evidence at a pixel: odd, so that it keeps its sign."""
SHARE = 0.97
"""Of what speaks for the class, held by the support: nearest in size to the part that a verdict
finds sufficient (measured: docs/method.md)."""


def of_feature(signal: Tensor, activation: Tensor, channel: int = 1) -> Tensor:
    """The signed evidence at a feature's positions: the sum over its maps of s * a.

    Args:
        signal, activation: (N, C, ...), with the maps at ``channel``.

    Returns:
        (N, ...), in float32 at least: in half precision the products may overflow.
    """
    dtype = torch.promote_types(signal.dtype, torch.float32)
    return (signal.to(dtype) * activation.to(dtype)).sum(channel)


def of_pixels(seen: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """The signed evidence of each pixel, relative to the largest.

    Each resolution's evidence is spread over the pixels that a position stands for, so that its sum
    stays the same, smoothed over half a position, as its borders mean nothing, and added up.

    Args:
        seen: the evidence at features of different resolutions, each (N, h, w), or of as many
            dimensions as the image; at least one.
        sizes: of the image, such as (H, W).

    Returns:
        (N, *sizes) in [-1, 1]; zero where there is no evidence at all.
    """
    total: Tensor | None = None
    for coarse in seen:
        share, fine = 1.0, _upsampled(coarse, sizes)
        for axis, size in enumerate(sizes):
            pixels = size / coarse.shape[axis + 1]  # that a position stands for
            share /= pixels
            fine = _smoothed(fine, axis + 1, max(pixels / 2, 1.0))
        total = fine * share if total is None else total + fine * share
    assert total is not None
    largest = total.abs().flatten(1).amax(1).reshape([-1] + [1] * len(sizes))
    return total / largest.clamp(min=torch.finfo(total.dtype).tiny)


def placed(signal: Tensor, seen: Sequence[Tensor], image: Tensor) -> Tensor:
    """The signed evidence in each channel of each pixel.

    The evidence says where, the signal what: |s| is as fine as the image, but its sign at a single
    pixel says little, for it is that of an edge's one side. Its magnitude is weighed by the pixel's
    relative evidence to the power of ``POWER``, which has the sign.

    Args:
        signal: s at the image, (N, C, ...).
        seen: as for ``of_pixels``; where it is empty, as for a network without any feature of
            spatial extent, the answer is the evidence at the image itself, s * x.
        image: x, as the network takes it.

    Returns:
        A tensor like ``signal``.
    """
    if not seen:
        return signal * image
    weight = of_pixels(seen, signal.shape[2:]).unsqueeze(1) ** POWER
    return (signal.abs() * weight).to(signal.dtype)


def of_values(values: Tensor, settings: Settings) -> Tensor:
    """One number a pixel of an attribution (N, C, ...): its signed evidence, or where the values
    are a signal its magnitude, (N, ...)."""
    return values.sum(1) if settings.values == "evidence" else values.abs().sum(1)


def support(evidence: Tensor) -> Tensor:
    """The fewest positions that hold the share ``SHARE`` of what speaks for the class, with all
    that equal the least of them.

    Args:
        evidence: signed, (N, ...).

    Returns:
        (N, ...) bool; nothing for a sample in which nothing speaks for the class.
    """
    speaks = torch.relu(evidence).flatten(1)
    falling = speaks.sort(dim=1, descending=True).values
    return holding(speaks, falling).reshape(evidence.shape)


def holding(speaks: Tensor, falling: Tensor) -> Tensor:
    """Which of the numbers hold the share ``SHARE`` of their sum, (N, positions) bool.

    Args:
        speaks: (N, positions), none negative.
        falling: the same, sorted, the largest first.
    """
    before = falling.cumsum(1) - falling  # what is held without this one
    needed = (before < SHARE * falling.sum(1, keepdim=True)).sum(1, keepdim=True)
    least = falling.gather(1, (needed - 1).clamp(min=0))
    return (speaks >= least) & (speaks > 0)


def support_of_values(
    values: Tensor, settings: Settings, support: Callable[[Tensor], Tensor] = support
) -> Tensor:
    """The pixels that carry an attribution (N, C, ...): the ``support`` of its evidence, or where
    the values are a signal all that it reached, (N, ...) bool."""
    if settings.values == "evidence":
        return support(values.sum(1))
    return (values != 0).any(1)


def density(evidence: Tensor) -> Tensor:
    """The share of the positions in the ``support``, (N,) float in [0, 1]."""
    return support(evidence).flatten(1).float().mean(1)


def _upsampled(coarse: Tensor, sizes: Sequence[int]) -> Tensor:
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sizes)]
    size: Any = tuple(sizes)
    return functional.interpolate(coarse[:, None], size=size, mode=mode, align_corners=False)[:, 0]


def _smoothed(values: Tensor, axis: int, sigma: float) -> Tensor:
    """A Gaussian of that standard deviation along one axis, (N, ...) as before; at the border the
    last value goes on."""
    size = values.shape[axis]
    reach = min(round(3 * sigma), 4 * size)
    steps = torch.arange(-reach, reach + 1, device=values.device)
    kernel = torch.exp(-(steps.to(values.dtype) ** 2) / (2 * sigma**2))
    weights = (kernel / kernel.sum()).expand(size, -1)
    places = (torch.arange(size, device=values.device)[:, None] + steps).clamp(0, size - 1)
    matrix = values.new_zeros(size, size).scatter_add(0, places.mT, weights.mT)
    return (values.movedim(axis, -1) @ matrix).movedim(-1, axis)
