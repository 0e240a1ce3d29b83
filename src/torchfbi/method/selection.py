"""Selection: what goes on at a feature.

Pure functions of tensors. Everything is per sample: no answer depends on its batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchfbi.engine.scratch import NO_SCRATCH, Scratch
from torchfbi.method.adjoints.pointwise import where_positive
from torchfbi.method.settings import Settings
from torchfbi.system.finite import finite


def select(
    signal: Tensor,
    activation: Tensor,
    settings: Settings,
    overwrite: bool = False,
    scratch: Scratch = NO_SCRATCH,
    *,
    channel: int = 1,
    top_k: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Section 2, "Forward-Backward masking" and "Contributing feature maps", at one feature.

    Args:
        signal: s, the sum of what came back, (N, C, ...).
        activation: a, the forward values, of the same shape.
        settings: the rule.
        overwrite: the signal's memory may be used for the selected one.
        scratch: memory for what is computed on the way.
        channel: the dimension that counts the feature maps.
        top_k: whether only the top maps go on here (features with spatial extent).

    Returns:
        The selected signal, and which maps were kept, (N, C) bool, or None without ``top_k``.
    """
    selected, ours = signal, overwrite  # whether its memory is ours
    if settings.tau is not None:
        out = signal if overwrite else None
        if passes_by_sign(settings):
            # With the signal rectified below, s a > 0 is a > 0 (where s a does not underflow).
            selected = where_positive(signal, activation, out)
        else:
            # A difference of two numbers is never rounded to zero.
            p = _contribution(signal, activation, scratch).sub_(settings.tau)
            selected = where_positive(signal, p, out)
        ours = True
    if settings.rectified:
        selected = torch.relu_(selected) if ours else torch.relu(selected)
        ours = True
    if not top_k:
        return selected, None
    maps = top_maps(selected, settings, channel)
    all_kept = _is(settings.k, 1.0)
    return selected if all_kept else keep_maps(selected, maps, channel, ours), maps


def passes_by_sign(settings: Settings) -> bool:
    """Whether the threshold, if there is one, only asks if the activation is positive."""
    return settings.rectified and (settings.tau is None or _is(settings.tau, 0.0))


def keep_maps(signal: Tensor, maps: Tensor, channel: int, overwrite: bool = False) -> Tensor:
    """The signal (N, C, ...) of the ``maps`` (N, C) alone."""
    shape = [1] * signal.ndim
    shape[0], shape[channel] = maps.shape
    factors = maps.reshape(shape).to(signal.dtype)
    return signal.mul_(factors) if overwrite else signal * factors


def top_maps(selected: Tensor, settings: Settings, channel: int) -> Tensor:
    """The ceil(k C) maps of the largest total signal; ties keep exactly as many.

    Returns:
        (N, C) bool.
    """
    if _is(settings.k, 1.0):
        maps = selected.shape[0], selected.shape[channel]
        return torch.ones(maps, dtype=torch.bool, device=selected.device)
    totals = finite(selected.sum([d for d in range(1, selected.ndim) if d != channel]))
    if isinstance(settings.k, Tensor):
        return _first_maps(totals, settings.k)
    # Rounded first: 0.07 * 100 is a little more than 7.
    count = max(1, math.ceil(round(settings.k * totals.shape[1], 9)))
    best = totals.topk(count, dim=1).indices
    return torch.zeros_like(totals).scatter(1, best, 1.0) > 0


def _is(number: float, value: float) -> bool:
    """Whether a setting has this value. As an input of an exported graph it has none yet."""
    return not isinstance(number, Tensor) and number == value


def _contribution(signal: Tensor, activation: Tensor, scratch: Scratch) -> Tensor:
    """s * a, in float32 at least: in half precision the product may overflow."""
    dtype = torch.promote_types(signal.dtype, torch.float32)
    out = scratch.like(signal, "contribution", dtype)
    return finite(torch.mul(signal.to(dtype), activation.to(dtype), out=out))


def _first_maps(totals: Tensor, k: Tensor) -> Tensor:
    """As ``top_maps`` ends, where k is an input of an exported graph."""
    maps = totals.shape[1]
    count = torch.ceil(k * maps - 1e-9).clamp(min=1)
    first = (torch.arange(maps, device=totals.device) < count).to(totals.dtype)
    ranked = totals.topk(maps, dim=1).indices
    return torch.zeros_like(totals).scatter(1, ranked, first.expand_as(totals)) > 0
