"""Seeds: what is put at the logits to probe a class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfbi.errors import TargetError
from torchfbi.method.heads import Tail
from torchfbi.method.settings import SeedKind
from torchfbi.system.tracing import tracing

Target = Tensor | Callable[[Tensor], Tensor] | int | None


def seed(logits: Tensor, target: Tensor, kind: SeedKind) -> Tensor:
    """The signal at the logits z that probes one class c of each sample.

    Args:
        logits: z, (N, classes), floating point.
        target: c, (N,), integer in [0, classes).
        kind: ``paper``: max z at c, min z elsewhere (section 2, "Dense layers"). ``one-hot``:
            e_c. ``contrast``: e_c minus the softmax of the other logits, that is
            e_c - sum_{j != c} p_j / (1 - p_c) e_j.

    Returns:
        A tensor like ``logits``.
    """
    classes = logits.shape[1]
    is_target = torch.arange(classes, device=logits.device) == target[:, None]
    if kind == "paper":
        highest, lowest = logits.amax(1, keepdim=True), logits.amin(1, keepdim=True)
        return torch.where(is_target, highest, lowest)
    one_hot = is_target.to(logits.dtype)
    if kind == "one-hot" or classes == 1:
        return one_hot
    rivals = torch.softmax(logits.masked_fill(is_target, -math.inf), 1)
    return one_hot - rivals


def seed_for(target: Target, logits: Tensor, kind: SeedKind, tail: Tail | None = None) -> Tensor:
    """The seed for any form of target: a class, one for each sample, or a function's answer.

    Args:
        tail: what the network does behind its logits. A function that says so by an attribute
            ``sees_output`` is asked about what the network returns, and its seed goes back
            through the tail; others are asked about the logits.

    Raises:
        TargetError: no such class, or an output that needs a function as target.
    """
    chosen: Any = target
    if callable(target):
        asks_tail = tail is not None and getattr(target, "sees_output", False)
        chosen = _through(tail, target, logits) if asks_tail else target(logits)
    if isinstance(chosen, Tensor) and chosen.is_floating_point():
        _check_seed(chosen, logits)
        return chosen.detach().to(logits)
    if logits.ndim != 2:
        raise TargetError(
            f"the network's output has shape {tuple(logits.shape)}, not (N, classes): give a "
            "function from this output to a seed of the same shape as target."
        )
    return seed(logits, as_classes(chosen, logits), kind)


def _through(tail: Any, target: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """A target's classes, or its seed for the network's own output as one for the logits."""
    with torch.inference_mode(False), torch.enable_grad():
        probe = logits.clone().requires_grad_()
        output = tail(probe)
        chosen = target(output.detach())
        if not chosen.is_floating_point():
            return chosen
        _check_seed(chosen, output)
        (seed,) = torch.autograd.grad(output, probe, chosen.detach().to(output))
    return seed


def _check_seed(seed: Tensor, output: Tensor) -> None:
    if seed.shape != output.shape:
        raise TargetError(
            f"the target function returned a seed of shape {tuple(seed.shape)}, but the "
            f"network's output has shape {tuple(output.shape)}."
        )


def as_classes(target: Tensor | int | None, logits: Tensor) -> Tensor:
    """The probed class of each sample, (N,) int64: the top class for None.

    Raises:
        TargetError: not one integer for each sample, or no such class.
    """
    if target is None:
        return logits.argmax(1)
    samples, classes = logits.shape
    chosen = torch.as_tensor(target, device=logits.device)
    if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise TargetError(f"the target must hold class numbers, not {chosen.dtype}.")
    chosen = chosen.long()  # PyTorch does not compare all integers
    if chosen.ndim > 1 or (chosen.ndim == 1 and chosen.shape[0] != samples):
        raise TargetError(
            f"the target has shape {tuple(chosen.shape)}: give one class for all, or one for "
            f"each of the {samples} samples."
        )
    if not tracing() and ((chosen < 0) | (chosen >= classes)).any():
        raise TargetError(
            f"there is no class {chosen.flatten().tolist()}: the network has {classes} classes, "
            f"0 to {classes - 1}."
        )
    return chosen.expand(samples)
