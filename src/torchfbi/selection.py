"""Selection: what goes on at a feature.

Pure functions of tensors. Everything is per sample: no answer depends on its batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchfbi.adjoints.pointwise import where_positive
from torchfbi.scratch import NO_SCRATCH, Scratch
from torchfbi.settings import Settings, Threshold
from torchfbi.thresholds import cut, finite


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
    threshold = settings.threshold
    if threshold is not None:
        if passes_by_sign(settings):
            # With the signal rectified below, s a > 0 is a > 0 (where s a does not underflow).
            selected = where_positive(signal, activation, signal if overwrite else None)
        else:
            p = _contribution(signal, activation, settings, scratch)
            t = cut(p, threshold, scratch)
            if settings.shrink:
                selected = _shrunk(signal, p, t, overwrite)
            else:
                # A difference of two numbers is never rounded to zero.
                selected = where_positive(signal, p.sub_(t), signal if overwrite else None)
        ours = True
    if settings.signs == "positive":
        selected = torch.relu_(selected) if ours else torch.relu(selected)
        ours = True
    if not top_k:
        return selected, None
    maps = top_maps(selected, activation, settings, channel)
    all_kept = _is(settings.k, 1.0)
    return selected if all_kept else keep_maps(selected, maps, channel, ours), maps


def passes_by_sign(settings: Settings) -> bool:
    """Whether the threshold, if there is one, only asks if the activation is positive."""
    threshold = settings.threshold
    at_zero = threshold is None or (threshold.kind == "absolute" and _is(threshold.value, 0.0))
    return settings.signs == "positive" and at_zero


def keep_maps(signal: Tensor, maps: Tensor, channel: int, overwrite: bool = False) -> Tensor:
    """The signal (N, C, ...) of the ``maps`` (N, C) alone."""
    shape = [1] * signal.ndim
    shape[0], shape[channel] = maps.shape
    factors = maps.reshape(shape).to(signal.dtype)
    return signal.mul_(factors) if overwrite else signal * factors


def select_pixels(signal: Tensor, threshold: Threshold) -> Tensor:
    """The image as feature 0: whole pixels go on whose magnitude exceeds the threshold.

    The magnitude is the sum of |s| over the colours. The product with the input would favour
    pixels far from the colour that happens to be zero.

    Args:
        signal: s at the image, (N, C, ...).
        threshold: the rule, on the magnitudes of each sample.
    """
    magnitude = signal.abs().sum(1, keepdim=True)
    return torch.where(magnitude > cut(magnitude, threshold), signal, 0.0)


def _is(number: float, value: float) -> bool:
    """Whether a setting has this value. As an input of an exported graph it has none yet."""
    return not isinstance(number, Tensor) and number == value


def _contribution(
    signal: Tensor, activation: Tensor, settings: Settings, scratch: Scratch
) -> Tensor:
    """|p| for p = s * a where both signs go on, else the positive part of p.

    In float32 at least: in half precision the product may overflow.
    """
    dtype = torch.promote_types(signal.dtype, torch.float32)
    out = scratch.like(signal, "contribution", dtype)
    p = torch.mul(signal.to(dtype), activation.to(dtype), out=out)
    return p.abs_() if settings.signs == "signed" else p.relu_().abs_()  # of -0.0 too


def _shrunk(signal: Tensor, p: Tensor, t: Tensor, overwrite: bool) -> Tensor:
    """s (1 - t / p) where p exceeds t, zero elsewhere. Written over ``p``."""
    t = t.clamp(min=torch.finfo(p.dtype).tiny)
    lost = torch.div(t, torch.maximum(p, t, out=p), out=p).to(signal.dtype)
    if overwrite:
        return signal.addcmul_(signal, lost, value=-1)
    return torch.addcmul(signal, signal, lost, value=-1)


def top_maps(selected: Tensor, activation: Tensor, settings: Settings, channel: int) -> Tensor:
    """The ceil(k C) maps of the largest total signal or contribution; ties keep exactly as many.

    Returns:
        (N, C) bool.
    """
    if _is(settings.k, 1.0):
        maps = selected.shape[0], selected.shape[channel]
        return torch.ones(maps, dtype=torch.bool, device=selected.device)
    ranked = selected * activation if settings.rank == "contribution" else selected
    totals = finite(ranked.sum([d for d in range(1, ranked.ndim) if d != channel]))
    if isinstance(settings.k, Tensor):
        return _first_maps(totals, settings.k)
    # Rounded first: 0.07 * 100 is a little more than 7.
    count = max(1, math.ceil(round(settings.k * totals.shape[1], 9)))
    best = totals.topk(count, dim=1).indices
    return torch.zeros_like(totals).scatter(1, best, 1.0) > 0


def _first_maps(totals: Tensor, k: Tensor) -> Tensor:
    """As ``top_maps`` ends, where k is an input of an exported graph."""
    maps = totals.shape[1]
    count = torch.ceil(k * maps - 1e-9).clamp(min=1)
    first = (torch.arange(maps, device=totals.device) < count).to(totals.dtype)
    ranked = totals.topk(maps, dim=1).indices
    return torch.zeros_like(totals).scatter(1, ranked, first.expand_as(totals)) > 0


def gate_by_evidence(
    signal: Tensor, activation: Tensor, settings: Settings, channel: int
) -> Tensor:
    """Keep the positions that hold evidence: it decides where, the selection decides what.

    e(x, y) is the sum of the contributions s * a over the maps. Positions with
    e > gate * max e go on, weighted by (e / max e)^power. Without positive evidence nothing
    goes on.

    Args:
        signal, activation: (N, C, ...).
        settings: ``evidence_gate`` must not be None.
        channel: the dimension that counts the feature maps.
    """
    assert settings.evidence_gate is not None
    evidence = torch.relu(finite((signal * activation).sum(channel, keepdim=True)))
    largest = evidence.flatten(1).amax(1).reshape([-1] + [1] * (signal.ndim - 1))
    relative = evidence / largest.clamp(min=torch.finfo(signal.dtype).tiny)
    weight = relative**settings.evidence_power
    return signal * torch.where(relative > settings.evidence_gate, weight, 0.0)
