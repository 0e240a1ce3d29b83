"""Selection: what goes on at a feature.

Pure functions of tensors. Everything is per sample: no answer depends on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfbi.adjoints.pointwise import where_positive
from torchfbi.errors import NonFiniteError
from torchfbi.settings import Settings, Threshold


def select(
    signal: Tensor,
    activation: Tensor,
    settings: Settings,
    *,
    channel: int = 1,
    top_k: bool = True,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Section 2, "Forward-Backward masking" and "Contributing feature maps", at one feature.

    Args:
        signal: s, the sum of what came back, (N, C, ...).
        activation: a, the forward values, of the same shape.
        settings: the rule.
        channel: the dimension that counts the feature maps.
        top_k: whether only the top maps go on here (features with spatial extent).
        overwrite: the signal's memory may be used for the selected one.

    Returns:
        The selected signal, and which maps were kept, (N, C) bool, or None without ``top_k``.
    """
    selected, ours = signal, overwrite  # whether its memory is ours
    threshold = settings.threshold
    if threshold is not None:
        at_zero = threshold.kind == "absolute" and _is(threshold.value, 0.0)
        if settings.signs == "positive" and at_zero:
            # With the signal rectified below, s a > 0 is a > 0 (where s a does not underflow).
            selected = where_positive(signal, activation, signal if overwrite else None)
        else:
            p = _excess(_contribution(signal, activation), settings)
            selected = where_positive(signal, p, p)
        ours = True
    if settings.signs == "positive":
        selected = torch.relu_(selected) if ours else torch.relu(selected)
        ours = True
    if not top_k:
        return selected, None
    maps = top_maps(selected, activation, settings, channel)
    all_kept = _is(settings.k, 1.0)
    return selected if all_kept else keep_maps(selected, maps, channel, ours), maps


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


def _contribution(signal: Tensor, activation: Tensor) -> Tensor:
    """p = s * a, in float32 at least: in half precision the product may overflow."""
    dtype = torch.promote_types(signal.dtype, torch.float32)
    return signal.to(dtype) * activation.to(dtype)


def _excess(contribution: Tensor, settings: Settings) -> Tensor:
    """p - t, or |p| - t where both signs go on: positive exactly where an entry is kept.

    Written over ``contribution``. A difference of two numbers is never rounded to zero.
    """
    assert settings.threshold is not None
    p = contribution.abs_() if settings.signs == "signed" else contribution
    return p.sub_(cut(p, settings.threshold))


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


STEPS_PER_OCTAVE = 128
OCTAVES = 24
_JUMP = 3 * STEPS_PER_OCTAVE


def cut(p: Tensor, threshold: Threshold) -> Tensor:
    """The number t above which an entry is kept, per sample, shaped to broadcast over ``p``.

    ``quantile`` and ``mass`` search t among the largest entry times 2^(-step/128), instead of
    sorting: t is at most a factor 2^(1/128) (0.55 %), and one unit of the dtype's precision,
    below the exact one, so that a little more is kept, never less. Entries below 2^-24 of the
    largest count as zero.

    Args:
        p: contributions, or their magnitudes where both signs go on, (N, ...). Negative
            entries can never be kept and hold no mass.

    Returns:
        t, (N, 1, ...).
    """
    shape = [-1] + [1] * (p.ndim - 1)
    if threshold.kind == "absolute":
        return p.new_ones(1).reshape(shape) * threshold.value
    inner = tuple(range(1, p.ndim))
    largest = finite(torch.maximum(p.amax(inner), -p.amin(inner)))
    if threshold.kind == "relative":
        return (threshold.value * largest).reshape(shape)
    wide = torch.promote_types(p.dtype, torch.float32)
    top = largest.to(wide).clamp(min=torch.finfo(wide).tiny)
    if threshold.kind == "mass":
        # Other runtimes may add up one by one, where float32 loses a thousandth of a step.
        exact = _exact(p) if torch.compiler.is_compiling() else wide
        wanted = threshold.value * finite(torch.relu(p).sum(inner, dtype=exact))
    else:
        wanted = torch.ones_like(top) * ((1 - threshold.value) * p[:1].numel())
    # Just below the step, also once rounded to p's dtype: an entry must exceed t to be kept.
    margin = max(1e-6, torch.finfo(p.dtype).eps)
    steps = torch.arange(STEPS_PER_OCTAVE * OCTAVES, device=p.device, dtype=wide)
    candidates = top[:, None] * torch.exp2(-steps / STEPS_PER_OCTAVE) * (1 - margin)
    candidates = F.pad(candidates, [0, 1]).to(p.dtype)  # zero keeps all
    fixed = torch.compiler.is_compiling() or p.device.type != "cpu"
    search = _count if fixed else _interpolate
    return search(p, candidates, wanted, threshold.kind == "mass").reshape(shape)


def _exact(p: Tensor) -> torch.dtype:
    """What long sums are added up in: float64, but Apple's GPUs have nothing wider than float32."""
    return torch.float32 if p.device.type == "mps" else torch.float64


def _count(p: Tensor, candidates: Tensor, wanted: Tensor, mass: bool) -> Tensor:
    """The first of falling candidates (N, steps) above which ``p`` holds the wanted amount, (N,).

    By a histogram of the first candidate that each entry exceeds: a few operators, none of which
    depends on what was found, so this can be exported, and a GPU never waits.
    """
    last = candidates.shape[1] - 1
    flat = p.flatten(1)
    weight = torch.relu(flat) if mass else (flat > 0).to(wanted.dtype)
    largest = candidates[:, :1].clamp(min=torch.finfo(p.dtype).tiny)
    share = (flat / largest).clamp(min=2.0 ** -(OCTAVES + 1))
    first = torch.floor(-STEPS_PER_OCTAVE * torch.log2(share)).long() + 1
    wide = _exact(p)  # in float32 a bin would stop counting at 2^24
    held = torch.zeros_like(candidates, dtype=wide)
    held = held.scatter_add(1, first.clamp(0, last), weight.to(wide))
    reached = (held.cumsum(1) < wanted[:, None]).sum(1, keepdim=True)
    return candidates.gather(1, reached.clamp(max=last))


def _interpolate(p: Tensor, candidates: Tensor, wanted: Tensor, mass: bool) -> Tensor:
    """As ``_count``, in a few passes over ``p``: the next candidate is interpolated."""
    found, buffer = [], torch.empty_like(p[0])
    for sample, steps, amount in zip(p, candidates, wanted.tolist(), strict=True):

        def held(step: int, sample: Tensor = sample, steps: Tensor = steps) -> float:
            t = steps[step].item()
            if not mass:
                return torch.count_nonzero(sample > t).item()
            torch.ops.aten.threshold.out(sample, t, 0.0, out=buffer)
            return buffer.sum(dtype=wanted.dtype).item()

        found.append(steps[_first_enough(held, amount, candidates.shape[1] - 1)])
    return torch.stack(found)


def _first_enough(held: Callable[[int], float], wanted: float, last: int) -> int:
    """The first step in 0 ... ``last`` at which a rising function reaches what is wanted.

    By regula falsi; an end that stays counts half (the "Illinois" rule), so that both ends move.
    """
    low, at_low, high, at_high = -1, 1.0, last, 0.0
    step, moved = min(_JUMP, last - 1), 0
    while high - low > 1:
        missing = wanted - held(step)
        if missing > 0:
            low, at_low = step, missing
            at_high = at_high / 2 if moved < 0 else at_high
            moved = -1
        else:
            high, at_high = step, missing
            at_low = at_low / 2 if moved > 0 else at_low
            moved = 1
        if low < 0:
            step = high // 2
        elif high == last:
            step = min(low + _JUMP, high - 1)
        else:
            step = low + round(at_low / (at_low - at_high) * (high - low))
            step = min(max(step, low + 1), high - 1)
    return high


def finite(signal: Tensor) -> Tensor:
    """The tensor as it is.

    Raises:
        NonFiniteError: a signal or its product with an activation is beyond the dtype's range.
    """
    if not (torch.compiler.is_compiling() or torch.isfinite(signal).all()):
        raise NonFiniteError(
            f"on its way back the signal exceeds what {signal.dtype} holds: explain in a wider "
            "dtype, for example model.double()."
        )
    return signal


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
