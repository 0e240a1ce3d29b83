"""How images and weights lie in memory: as the machine's convolutions like them best."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


def laid_out(tensor: Tensor) -> Tensor:
    """The same values for a convolution: maps innermost ("channels last") on a CPU.

    There oneDNN's convolutions need no reordering of the signal then, and run up to twice as
    fast; every operator between them keeps the layout. Other devices get the tensor as it is.
    """
    if tensor.ndim != 4 or not has_onednn(tensor.device):
        return tensor
    if tensor.dtype == torch.float64:
        return tensor  # oneDNN knows no float64
    return tensor.contiguous(memory_format=torch.channels_last)


def has_onednn(device: torch.device) -> bool:
    """Whether oneDNN may run what lies there."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and available


def onednn_takes(tensor: Tensor) -> bool:
    """Whether oneDNN is at hand, not turned off, and quick with such a tensor."""
    if not (has_onednn(tensor.device) and torch.backends.mkldnn.enabled):
        return False
    half = tensor.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return half or tensor.dtype == torch.float32


def only_shape(value: Tensor) -> Tensor:
    """A tensor of the same shape, dtype and device that holds no memory."""
    return value.new_zeros(()).expand(value.shape)


class Signs(NamedTuple):
    """What is left of a tensor of which only the signs count.

    Args:
        positive: 1 where it was positive and 0 elsewhere, int8.
        outline: as ``only_shape`` returns it.
    """

    positive: Tensor
    outline: Tensor


def outlined(value: Any) -> Any:
    """A value for whoever asks no more of signs than their shape; others as they are."""
    return value.outline if isinstance(value, Signs) else value


def only_signs(value: Tensor) -> Tensor | Signs:
    """The signs of a tensor of 8 MiB or more, in a quarter of its memory or half; smaller ones stay
    as they are."""
    if value.nbytes < _LARGE:
        return value
    return Signs((value > 0).view(torch.int8), only_shape(value))


_LARGE = 2**23


def repeated(value: Any, times: int) -> Any:
    """One image's value as that of a batch of equal images; nothing is copied."""
    if isinstance(value, Signs):
        return Signs(*(repeated(part, times) for part in value))
    return value if times == 1 else value.expand(times, *value.shape[1:])
