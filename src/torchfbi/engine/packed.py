"""Convolutions with weights packed as oneDNN computes with them, once instead of at every call.

Where a layer has more weights than positions to use them at, ordering them takes as long as the
convolution itself. PyTorch's own compiler packs weights by the same operators.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from torchfbi.system.layout import onednn_takes

_FORTH, _BACK = 2048, 256
"""With more positions, in all images of the batch, packing saves little time for its memory."""

_PACKED: MutableMapping[Tensor, dict[Any, tuple[int, Tensor]]] = WeakTensorKeyDictionary()


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor | None:
    """``aten.convolution`` with the packed weights, or None where that does not pay."""
    if transposed or x.ndim != 4 or not onednn_takes(x) or weight.is_inference():
        return None
    if len(x) * (x.shape[2:].numel() // (stride[0] * stride[1])) > _FORTH:
        return None

    window = (*stride, *padding, *dilation, groups)

    def pack() -> Tensor:
        order: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # whose stub lacks an argument
        return order(weight.to_mkldnn(), padding, stride, dilation, groups, x.shape)

    packed = _packed(weight, ("forth", *window, *x.shape[2:]), pack)
    value: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, packed, bias, padding, stride, dilation, groups, "none", [], ""
    )
    return value


def transposed_convolution(
    s: Tensor, weight: Tensor, window: tuple[list[int], list[int], list[int], list[int]]
) -> Tensor | None:
    """As the one of ``transposed`` with the packed weights, or None where that does not pay.

    Args:
        s: the signal, (N, O, H, W).
        weight: (O, I, h, w).
        window: stride, padding, dilation and leftover of the convolution.
    """
    if s.ndim != 4 or not onednn_takes(s) or weight.is_inference():
        return None
    if s.numel() > _BACK * s.shape[1]:
        return None
    stride, padding, dilation, leftover = window

    def pack() -> Tensor:
        return torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight, padding, leftover, stride, dilation, 1, list(s.shape)
        )

    packed = _packed(weight, ("back", *(number for part in window for number in part)), pack)
    back: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
        s, packed, None, padding, leftover, stride, dilation, 1, "none", [], ""
    )
    return back


def _packed(weight: Tensor, use: Any, pack: Callable[[], Tensor]) -> Tensor:
    """The packed weights for one use; packed again when they were written to."""
    known = _PACKED.setdefault(weight, {})
    version, packed = known.get(use, (None, weight))
    if version != weight._version:
        packed = pack()
        known[use] = weight._version, packed
    return packed
