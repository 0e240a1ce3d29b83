"""Choosing by sign, as a CPU does it quickly."""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten


def where_positive(signal: Tensor, condition: Tensor, out: Tensor | None = None) -> Tensor:
    """The signal where the condition exceeds zero, and zero elsewhere.

    ``torch.where`` on a comparison says the same in ten times the time on a CPU.

    Args:
        signal, condition: of one shape. The condition may be int8.
        out: either of them, to write over it.
    """
    if condition.dtype == torch.int8:
        # Sample by sample, so that what is compared stays in the cache.
        kept = torch.empty_like(signal) if out is None else out
        for s, one, to in zip(signal, condition, kept, strict=True):
            aten.threshold_backward.grad_input(s, one.to(s.dtype), 0.0, grad_input=to)
        return kept
    if signal.dtype != condition.dtype:
        return torch.where(condition > 0, signal, 0.0)
    if out is None:
        return aten.threshold_backward.default(signal, condition, 0.0)
    return aten.threshold_backward.grad_input(signal, condition, 0.0, grad_input=out)


def rectified(signal: Tensor, overwrite: bool) -> Tensor:
    """ReLU of the signal, in its own memory where that is allowed."""
    return torch.relu_(signal) if overwrite else torch.relu(signal)
