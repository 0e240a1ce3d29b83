"""Seeds: what is put at the logits to probe a class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfbi.errors import TargetError
from torchfbi.method.graph import Graph
from torchfbi.method.settings import SeedKind

RIVALS = 0.75
"""How much a class's rivals count in the ``contrast`` seed. With all of it, what classes have in
common, an animal's fur, speaks for none; with none of it, two cats are drawn alike (measured:
docs/study.md)."""

Target = Tensor | Callable[[Tensor], Tensor] | int | None


def seed(logits: Tensor, chosen: Tensor, kind: SeedKind) -> Tensor:
    """The signal at the logits z that probes one class c of each sample.

    Args:
        logits: z, (N, classes), floating point.
        chosen: c, (N,), integer in [0, classes); or the seed itself, like ``logits``.
        kind: ``paper``: max z at c, min z elsewhere (section 2, "Dense layers"). ``one-hot``:
            e_c. ``contrast``: e_c minus three quarters of the softmax of the other logits,
            e_c - 3/4 sum_{j != c} p_j / (1 - p_c) e_j.

    Returns:
        A tensor like ``logits``.
    """
    if chosen.is_floating_point():
        return chosen
    classes = logits.shape[1]
    is_target = torch.arange(classes, device=logits.device) == chosen[:, None]
    if kind == "paper":
        highest, lowest = logits.amax(1, keepdim=True), logits.amin(1, keepdim=True)
        return torch.where(is_target, highest, lowest)
    one_hot = is_target.to(logits.dtype)
    if kind == "one-hot" or classes == 1:
        return one_hot
    rivals = torch.softmax(logits.masked_fill(is_target, -math.inf), 1)
    return one_hot - RIVALS * rivals


def ask(target: Target, logits: Tensor, graph: Graph) -> Tensor:
    """What any form of target asks for: a class for each sample, (N,) int64, or a seed of the
    logits' own shape, floating point.

    Args:
        target: a class, one for each sample, None for the top class; or a function of the logits
            that answers with classes or a seed. A function that says so by an attribute
            ``sees_output`` is asked about what the network returns, and its seed goes back
            through the network's tail.

    Whether there is such a class is not asked, as a traced graph cannot: see ``check_classes``.

    Raises:
        TargetError: not one integer for each sample, or an output that needs a function as target.
    """
    answer: Any = target
    if callable(target):
        asks_tail = graph.tail is not None and getattr(target, "sees_output", False)
        own = logits.clone()  # it may write to what it is given
        answer = _through(graph.tail, target, own) if asks_tail else target(own)
    if isinstance(answer, Tensor) and answer.is_floating_point():
        _check_seed(answer, logits)
        return answer.detach().to(logits)
    if logits.ndim != 2:
        raise TargetError(
            f"the network's output has shape {tuple(logits.shape)}, not (N, classes): give a "
            "function from this output to a seed of the same shape as target."
        )
    return _a_class_each(answer, logits)


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
    chosen = _a_class_each(target, logits)
    check_classes(chosen, logits)
    return chosen


def _a_class_each(target: Tensor | int | None, logits: Tensor) -> Tensor:
    if target is None:
        return logits.argmax(1)
    samples = logits.shape[0]
    chosen = torch.as_tensor(target, device=logits.device)
    if chosen.is_floating_point() or chosen.is_complex() or chosen.dtype == torch.bool:
        raise TargetError(f"the target must hold class numbers, not {chosen.dtype}.")
    chosen = chosen.long()  # PyTorch does not compare all integers
    if chosen.ndim > 1 or (chosen.ndim == 1 and chosen.shape[0] != samples):
        raise TargetError(
            f"the target has shape {tuple(chosen.shape)}: give one class for all, or one for "
            f"each of the {samples} samples."
        )
    return chosen.expand(samples)


def check_classes(chosen: Tensor, logits: Tensor) -> None:
    """Refuse classes that the logits (N, classes) do not have; a seed is none.

    Raises:
        TargetError: no such class.
    """
    if chosen.is_floating_point():
        return
    classes = logits.shape[1]
    if ((chosen < 0) | (chosen >= classes)).any():
        raise TargetError(
            f"there is no class {chosen.flatten().tolist()}: the network has {classes} classes, "
            f"0 to {classes - 1}."
        )
