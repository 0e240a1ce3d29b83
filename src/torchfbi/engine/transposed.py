"""A transposed convolution, by another way where PyTorch's own is slow."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.method.adjoints import windows
from torchfbi.system.layout import onednn_takes

aten = torch.ops.aten


def transposed_convolution(
    s: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    leftover: list[int],
    groups: int,
) -> Tensor:
    """As ``torchfbi.method.adjoints.windows.transposed_convolution``.

    In bfloat16 a strided one with a filter for each map takes ten to thirty times as long as the
    same with zeros between the signal's entries and the filters turned round.

    Args:
        s: the signal, (N, O, ...).
        weight: (O, I / groups, ...).
        stride, padding, dilation, groups: of the convolution.
        leftover: input pixels that its last window left over, along each axis.
    """
    reach = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    a_filter_each = groups > 1 and tuple(weight.shape[:2]) == (groups, 1)
    slow = a_filter_each and set(stride) != {1} and s.itemsize == 2
    if not slow or min(reach) < 0 or s.ndim != 4 or not onednn_takes(s):
        return windows.transposed_convolution(
            s, weight, stride, padding, dilation, leftover, groups
        )
    sizes = [
        (n - 1) * step + 1 + rest
        for n, step, rest in zip(s.shape[2:], stride, leftover, strict=True)
    ]
    turned, ones, zeros = weight.flip(2, 3), [1] * len(stride), [0] * len(stride)
    return aten.convolution.default(
        spaced(s.movedim(1, -1), stride, sizes).movedim(-1, 1),
        turned,
        None,
        ones,
        reach,
        dilation,
        False,
        zeros,
        groups,
    )


def spaced(s: Tensor, stride: list[int], sizes: list[int] | torch.Size) -> Tensor:
    """The signal with zeros between its positions.

    Args:
        s: (N, ..., C), maps last.
        stride: the distance of the positions.
        sizes: of the result.

    Returns:
        A tensor (N, *sizes, C).
    """
    apart = s.new_zeros(len(s), *sizes, s.shape[-1])
    apart[(slice(None), *(slice(None, None, step) for step in stride))] = s
    return apart
