"""Adjoints of pooling: three for the maximum, the exact one for averages."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfbi.method.adjoints.registry import Site, adjoint
from torchfbi.method.adjoints.shape import separable
from torchfbi.method.adjoints.windows import left_over, transposed_convolution
from torchfbi.method.settings import Settings

aten = torch.ops.aten


@adjoint(
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    keeps=("inputs", "output"),
)
def max_pool(
    s: Tensor,
    at: Site,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> Tensor:
    """``replicate`` (section 2, "Unpooling"), ``proportional`` or ``winner``."""
    window = (kernel, stride, padding, dilation)
    if at.settings.pooling == "winner":
        pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[len(kernel)]
        _, indices = pool(x, *window, ceil_mode, return_indices=True)
        empty = s.new_zeros(x.shape).flatten(2)
        return empty.scatter_add(2, indices.flatten(2), s.flatten(2)).reshape(x.shape)
    if at.settings.pooling == "proportional":
        active = torch.relu(x)
        total = _sum_pool(active, s.shape[2:], *window)
        share = torch.where(total > 0, s / total.clamp(min=torch.finfo(s.dtype).tiny), 0)
        return spread(share, x, *window) * active
    copies = spread(torch.ones_like(s[:1, :1]), x, *window).clamp(min=1)  # or none, at a border
    shared, forward = spread(s, x, *window), spread(at.output, x, *window)
    return smaller(shared, forward, at.settings) / copies


def smaller(s: Tensor, forward: Tensor, settings: Settings) -> Tensor:
    """The minimum of signal and forward value. With both signs it bounds the magnitude, so that
    a negative signal survives."""
    if settings.rectified:
        return torch.minimum(s, forward)
    bound = torch.relu(forward)
    return torch.maximum(torch.minimum(s, bound), -bound)


def tiles(kernel: list[int], stride: list[int], padding: list[int], dilation: list[int]) -> bool:
    """Whether the windows do not overlap."""
    return stride == kernel and not any(padding) and set(dilation) == {1}


@adjoint(aten.amax.default, aten.amin.default, keeps=("inputs", "output"))
def amax(s: Tensor, at: Site, x: Tensor, dim: list[int] = [], keepdim: bool = False) -> Tensor:  # noqa: B006
    """The maxima, or minima, share the signal equally."""
    winners = (x == _restore(at.output, x, dim, keepdim)).to(s.dtype)
    counts = winners.sum(tuple(dim) or tuple(range(x.ndim)), keepdim=True)
    return _restore(s, x, dim, keepdim) * winners / counts


@adjoint(aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(
    s: Tensor,
    at: Site,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Tensor:
    """Every pixel of a window gets its share of the window's signal."""
    window = (kernel, stride, padding, [1] * len(kernel))
    if divisor_override is not None:
        return spread(s, x, *window) / divisor_override
    ones = s.new_ones(1, 1, *x.shape[2:])
    if count_include_pad:
        border = [width for width in reversed(padding) for _ in range(2)]
        ones = F.pad(ones, border, value=1.0)
    inside = [0] * len(kernel) if count_include_pad else padding
    divisor = _sum_pool(ones, s.shape[2:], kernel, stride, inside, window[3])
    return spread(s / divisor, x, *window)


@adjoint(
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
)
def adaptive_avg_pool(s: Tensor, at: Site, x: Tensor, output_size: list[int]) -> Tensor:
    """Averages along each axis, spread back along each axis."""
    if list(s.shape[2:]) == list(x.shape[2:]):
        return s
    if all(size == 1 for size in s.shape[2:]):
        return s.expand(x.shape) / x.shape[2:].numel()

    operator: Any = at.node.target

    def pool(basis: Tensor, axis: int) -> Tensor:
        size = [1] * len(output_size)
        size[axis] = s.shape[axis + 2]
        return operator(basis, size)

    return separable(s, x, pool)


@adjoint(aten.mean.dim, aten.mean.default)
def mean(
    s: Tensor,
    at: Site,
    x: Tensor,
    dim: list[int] | None = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Spread equally over what was averaged."""
    count = 1
    for d in dim or range(x.ndim):
        count *= x.shape[d]
    return _restore(s, x, dim, keepdim).to(x.dtype) / count


@adjoint(aten.sum.dim_IntList, aten.sum.default)
def sum_(
    s: Tensor,
    at: Site,
    x: Tensor,
    dim: list[int] | None = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Copied to all that was summed."""
    return _restore(s, x, dim, keepdim).to(x.dtype)


def spread(
    s: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Copy each pooled value over its window in the input; overlapping copies are summed.

    Args:
        s: (N, C, *pooled sizes).
        x: the pooling's input (only its shape counts), (N, C, *sizes).

    Returns:
        A tensor (N, C, *sizes).
    """
    if tiles(kernel, stride, padding, dilation):
        sizes = [n * k for n, k in zip(s.shape[2:], kernel, strict=True)]
        full = F.interpolate(s, sizes, mode="nearest")
    else:
        channels, zeros = s.shape[1], [0] * len(kernel)
        ones = s.new_ones(1, 1, *kernel).expand(channels, 1, *kernel)
        leftover = left_over(x.shape[2:], s.shape[2:], kernel, stride, padding, dilation)
        if all(0 <= rest < step for rest, step in zip(leftover, stride, strict=True)):
            return transposed_convolution(s, ones, stride, padding, dilation, leftover, channels)
        full = transposed_convolution(s, ones, stride, zeros, dilation, zeros, channels)
    trim = [
        width
        for axis in reversed(range(len(kernel)))
        for width in (
            -padding[axis],
            x.shape[axis + 2] + padding[axis] - full.shape[axis + 2],
        )
    ]
    return F.pad(full, trim) if any(trim) else full


def _sum_pool(
    x: Tensor,
    outputs: torch.Size,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """The sum over each window, borders counting nothing: the transpose of ``spread``."""
    rest = left_over(x.shape[2:], outputs, kernel, stride, padding, dilation)
    border = [
        width
        for before, left in zip(reversed(padding), reversed(rest), strict=True)
        for width in (before, before - left)
    ]
    one_map = F.pad(x, border).flatten(0, 1).unsqueeze(1)
    zeros, ones = [0] * len(kernel), x.new_ones(1, 1, *kernel)
    summed: Tensor = aten.convolution.default(
        one_map, ones, None, stride, zeros, dilation, False, zeros, 1
    )
    return summed.reshape(*x.shape[:2], *outputs)


def _restore(s: Tensor, x: Tensor, dim: list[int] | None, keepdim: bool) -> Tensor:
    """Undo a reduction's loss of dimensions and copy along them."""
    if not keepdim:
        for d in sorted(d % x.ndim for d in (dim or range(x.ndim))):
            s = s.unsqueeze(d)
    return s.expand(x.shape)
