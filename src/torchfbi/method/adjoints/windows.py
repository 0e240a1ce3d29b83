"""Windows: what a strided operator's output does not tell of them, and their way back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def transposed_convolution(
    s: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    leftover: list[int],
    groups: int,
) -> Tensor:
    """``aten.convolution`` with ``transposed`` and without bias.

    Args:
        s: the signal, (N, O, ...).
        weight: (O, I / groups, ...).
        stride, padding, dilation, groups: of the convolution.
        leftover: input pixels that its last window left over, along each axis.
    """
    back: Tensor = torch.ops.aten.convolution.default(
        s, weight, None, stride, padding, dilation, True, leftover, groups
    )
    return back


def left_over(
    sizes: Sequence[int],
    outputs: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """How many pixels the last window left over along each axis, which a strided operator's output
    does not tell; below zero, how far that window reaches beyond the padding."""
    return [
        size + 2 * border - ((n - 1) * step + d * (k - 1) + 1)
        for size, n, k, step, border, d in zip(
            sizes, outputs, kernel, stride, padding, dilation, strict=True
        )
    ]
