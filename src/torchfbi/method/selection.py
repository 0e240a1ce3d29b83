"""Selection: what goes on at a feature.

Pure functions of tensors. Everything is per sample: no answer depends on its batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchfbi.method.settings import Settings


def select(
    signal: Tensor, activation: Tensor, settings: Settings, *, channel: int = 1, top_k: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Section 2, "Forward-Backward masking" and "Contributing feature maps", at one feature.

    Args:
        signal: s, the sum of what came back, (N, C, ...).
        activation: a, the forward values, of the same shape.
        settings: the rule.
        channel: the dimension that counts the feature maps.
        top_k: whether only the top maps go on here (features with spatial extent).

    Returns:
        The selected signal, and which maps were kept, (N, C) bool, or None without ``top_k``.
    """
    if settings.tau is not None:
        if passes_by_sign(settings):  # only signals s > 0 go on: s a > 0 is a > 0, never rounded
            exceeds = activation > 0
        else:
            exceeds = product(signal, activation) > settings.tau
        signal = torch.where(exceeds, signal, 0.0)
    if settings.rectified:
        signal = torch.relu(signal)
    if not top_k:
        return signal, None
    maps = top_maps(totals(signal, channel), settings.k)
    return keep_maps(signal, maps, channel), maps


def passes_by_sign(settings: Settings) -> bool:
    """Whether the threshold, if there is one, only asks if the activation is positive."""
    return settings.rectified and (settings.tau is None or _is(settings.tau, 0.0))


def keep_maps(signal: Tensor, maps: Tensor, channel: int, out: Tensor | None = None) -> Tensor:
    """The signal (N, C, ...) of the ``maps`` (N, C) alone; ``out`` may be the signal itself."""
    shape = [1] * signal.ndim
    shape[0], shape[channel] = maps.shape
    return torch.mul(signal, maps.reshape(shape).to(signal.dtype), out=out)


def totals(signal: Tensor, channel: int) -> Tensor:
    """The total signal of each map, (N, C)."""
    return signal.sum([d for d in range(1, signal.ndim) if d != channel])


def top_maps(totals: Tensor, k: float | Tensor) -> Tensor:
    """The ceil(k C) maps of the largest total signal; ties keep exactly as many.

    Args:
        totals: (N, C).
        k: a tensor where it is an input of an exported graph.

    Returns:
        (N, C) bool.
    """
    maps = totals.shape[1]
    if not isinstance(k, Tensor):
        # Rounded first: 0.07 * 100 is a little more than 7.
        count = max(1, math.ceil(round(k * maps, 9)))
        best = totals.topk(count, dim=1).indices
        return torch.zeros_like(totals).scatter(1, best, 1.0) > 0
    first = torch.arange(maps, device=totals.device) < torch.ceil(k * maps - 1e-9).clamp(min=1)
    ranked = totals.topk(maps, dim=1).indices
    return torch.zeros_like(totals).scatter(1, ranked, first.to(totals).expand_as(totals)) > 0


def _is(number: float, value: float) -> bool:
    """Whether a setting has this value. As an input of an exported graph it has none yet."""
    return not isinstance(number, Tensor) and number == value


def product(signal: Tensor, activation: Tensor, out: Tensor | None = None) -> Tensor:
    """s a, in float32 at least: in half precision it may overflow."""
    dtype = torch.promote_types(signal.dtype, torch.float32)
    return torch.mul(signal.to(dtype), activation.to(dtype), out=out)
