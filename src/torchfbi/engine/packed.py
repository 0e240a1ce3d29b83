"""A transposed convolution with weights packed once, as ``packing`` has them on the way forth."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from torchfbi.system.layout import onednn_takes

_MOST_POSITIONS = 256
"""With more of them in all signals of the batch packing saves little time for its memory."""
_PACKED: MutableMapping[Tensor, tuple[Any, Tensor]] = WeakTensorKeyDictionary()


def transposed_convolution(
    s: Tensor, weight: Tensor, window: tuple[list[int], list[int], list[int], list[int]]
) -> Tensor | None:
    """As the one of ``transposed``, with the packed weights, or None where that does not pay.

    Args:
        s: the signal, (N, O, H, W).
        weight: (O, I, h, w); it is packed again when it was written to.
        window: stride, padding, dilation and leftover of the convolution.
    """
    if s.ndim != 4 or not onednn_takes(s):
        return None
    if s.numel() > _MOST_POSITIONS * s.shape[1] or weight.is_inference():
        return None
    stride, padding, dilation, leftover = window
    made_for = (window, weight._version)
    packed_for, packed = _PACKED.get(weight, (None, weight))
    if packed_for != made_for:
        packed = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            weight, padding, leftover, stride, dilation, 1, list(s.shape)
        )
        _PACKED[weight] = made_for, packed
    back: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
        s, packed, None, padding, leftover, stride, dilation, 1, "none", [], ""
    )
    return back
