"""Selection: what goes on at a feature.

Pure functions of tensors. Everything is per sample: no answer depends on its batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchfbi.settings import Settings, Threshold


def select(
    signal: Tensor,
    activation: Tensor,
    settings: Settings,
    *,
    channel: int = 1,
    top_k: bool = True,
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
    selected = signal
    if settings.threshold is not None:
        selected = torch.where(_exceeds(_contribution(signal, activation), settings), signal, 0.0)
    if settings.signs == "positive":
        selected = torch.relu(selected)
    if not top_k:
        return selected, None
    maps = top_maps(selected, activation, settings, channel)
    return keep_maps(selected, maps, channel), maps


def keep_maps(signal: Tensor, maps: Tensor, channel: int) -> Tensor:
    """The signal (N, C, ...) of the ``maps`` (N, C) alone."""
    shape = [1] * signal.ndim
    shape[0], shape[channel] = maps.shape
    return torch.where(maps.reshape(shape), signal, 0.0)


def select_positions(signal: Tensor, image: Tensor, settings: Settings, channel: int) -> Tensor:
    """The image as feature 0: the same threshold on s * x summed over the colour channels.

    Whole pixels go on or do not; the signal's signs stay, since images are signed.
    """
    if settings.threshold is None:
        return signal
    contribution = _contribution(signal, image).sum(channel, keepdim=True)
    return torch.where(_exceeds(contribution, settings), signal, 0.0)


def _contribution(signal: Tensor, activation: Tensor) -> Tensor:
    """p = s * a, in float32 at least: in half precision the product may overflow."""
    dtype = torch.promote_types(signal.dtype, torch.float32)
    return signal.to(dtype) * activation.to(dtype)


def _exceeds(contribution: Tensor, settings: Settings) -> Tensor:
    """Which entries are kept: p > t, or |p| > t where both signs go on."""
    assert settings.threshold is not None
    p = contribution.abs() if settings.signs == "signed" else contribution
    return p > cut(p, settings.threshold)


def top_maps(selected: Tensor, activation: Tensor, settings: Settings, channel: int) -> Tensor:
    """The ceil(k C) maps of the largest total signal or contribution; ties keep exactly as many.

    Returns:
        (N, C) bool.
    """
    ranked = selected * activation if settings.rank == "contribution" else selected
    totals = ranked.movedim(channel, 1).flatten(2).sum(2)
    if settings.k == 1.0:
        return torch.ones_like(totals, dtype=torch.bool)
    # Rounded first: 0.07 * 100 is a little more than 7.
    count = max(1, math.ceil(round(settings.k * totals.shape[1], 9)))
    best = totals.topk(count, dim=1).indices
    return torch.zeros_like(totals).scatter(1, best, 1.0) > 0


BINS_PER_OCTAVE = 128
OCTAVES = 24


def cut(p: Tensor, threshold: Threshold) -> Tensor:
    """The number t above which an entry is kept, per sample, shaped to broadcast over ``p``.

    ``quantile`` and ``mass`` read t off a histogram with logarithmic bins instead of sorting:
    t is at most a factor 2^(1/128) (0.55 %), and one unit of the dtype's precision, below the
    exact one, so that a little more is kept, never less. Entries below 2^-24 of the largest
    count as zero.

    Args:
        p: contributions, or their magnitudes where both signs go on, (N, ...). Negative
            entries can never be kept and hold no mass.

    Returns:
        t, (N, 1, ...).
    """
    shape = [-1] + [1] * (p.ndim - 1)
    if threshold.kind == "absolute":
        return p.new_full((1,), threshold.value).reshape(shape)
    flat = p.flatten(1)
    largest = flat.abs().amax(1)
    if threshold.kind == "relative":
        return (threshold.value * largest).reshape(shape)
    flat = flat.float()
    scale = largest.float().clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    bins = BINS_PER_OCTAVE * OCTAVES
    # Bin 0 holds what is negligible; from bin 1 on, bin b starts at scale * 2^((b - bins) / 128).
    octave = torch.log2((flat / scale).clamp(min=2.0 ** -(OCTAVES + 1)))
    index = (bins + torch.floor(BINS_PER_OCTAVE * octave)).nan_to_num(0).clamp(0, bins).long()
    weight = flat.clamp(min=0) if threshold.kind == "mass" else torch.ones_like(flat)
    # In float32 a bin would stop counting at 2^24; Apple's GPUs have nothing wider.
    wide = torch.float32 if p.device.type == "mps" else torch.float64
    weight = weight.to(wide)
    histogram = torch.zeros(flat.shape[0], bins + 1, device=p.device, dtype=wide)
    above = histogram.scatter_add(1, index, weight).flip(1).cumsum(1)
    total = above[:, -1:]
    wanted = threshold.value * total
    if threshold.kind == "quantile":
        wanted = (1 - threshold.value) * total
    # The first bin from the top at which the wanted amount is reached.
    reached = (above < wanted).sum(1)
    edge = scale[:, 0] * torch.exp2((bins - reached - bins).float() / BINS_PER_OCTAVE)
    edge = torch.where(reached >= bins, torch.zeros_like(edge), edge)
    # Just below the edge, also once rounded to p's dtype: an entry must exceed t to be kept.
    margin = max(1e-6, torch.finfo(p.dtype).eps)
    return (edge * (1 - margin)).to(p.dtype).reshape(shape)


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
    evidence = torch.relu((signal * activation).sum(channel, keepdim=True))
    largest = evidence.flatten(1).amax(1).reshape([-1] + [1] * (signal.ndim - 1))
    relative = evidence / largest.clamp(min=torch.finfo(signal.dtype).tiny)
    weight = relative**settings.evidence_power
    return signal * torch.where(relative > settings.evidence_gate, weight, 0.0)
