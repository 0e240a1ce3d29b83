"""Thresholds: the number above which the entries of a feature are kept.

Per sample, and exact, without sorting millions of entries.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchfbi.errors import NonFiniteError
from torchfbi.scratch import NO_SCRATCH, Scratch
from torchfbi.settings import Threshold
from torchfbi.tracing import tracing

BINS_PER_OCTAVE = 1024
OCTAVES = 24
PARTS = 2**14  # of a bin

_SOME = 2048  # entries whose distribution leads the search
_FEW = 2**11  # so many are sorted
_BLOCK = 1024  # so many are added up in float32
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
_PATIENCE = 16  # passes before the bounds are halved: where many entries are equal


def cut(p: Tensor, threshold: Threshold, scratch: Scratch = NO_SCRATCH) -> Tensor:
    """The number t above which an entry is kept, per sample, shaped to broadcast over ``p``.

    ``mean`` takes the mean over the entries that are not zero: how many units are silent makes
    no difference. ``mass`` keeps the fewest entries that hold the share, ``quantile`` the largest
    ones, both with all that equal the smallest of them: t is the largest entry that is not kept,
    or zero. In exported programs and on GPUs these two may keep more: entries within 5e-8 of the
    smallest, and those below 2^-24 of the largest.

    Args:
        p: magnitudes of contributions, (N, ...), none below zero and none -0.0.
        scratch: memory for the search.

    Returns:
        t, (N, 1, ...), in float32 at least.

    Raises:
        NonFiniteError: an entry is beyond the dtype's range.
    """
    p = p.to(torch.promote_types(p.dtype, torch.float32))
    shape = [-1] + [1] * (p.ndim - 1)
    if threshold.kind == "absolute":
        return p.new_ones(1).reshape(shape) * threshold.value
    inner = tuple(range(1, p.ndim))
    if threshold.kind == "relative":
        return (threshold.value * finite(p.amax(inner))).reshape(shape)
    if p.device.type == "cpu" and not tracing():
        find = _by_mean if threshold.kind == "mean" else _by_search
        return p.new_tensor([find(sample, threshold, scratch) for sample in p]).reshape(shape)
    if threshold.kind == "mean":
        total, number = p.sum(inner, dtype=_exact(p)), (p > 0).sum(inner)
        mean = (total / number.clamp(min=1)).to(p.dtype)
        return (threshold.value * finite(mean)).reshape(shape)
    return _by_histogram(p, finite(p.amax(inner)), threshold).reshape(shape)


def finite(signal: Tensor) -> Tensor:
    """The tensor as it is.

    Raises:
        NonFiniteError: a signal or its product with an activation is beyond the dtype's range.
    """
    if signal.numel() and not tracing():
        # Twenty times as fast as a look at every entry.
        for bound in signal.aminmax():
            _check(bound.item(), signal.dtype)
    return signal


def _check(number: float, dtype: torch.dtype) -> float:
    if not math.isfinite(number):
        raise NonFiniteError(
            f"on its way back the signal exceeds what {dtype} holds: explain in a wider dtype, for "
            "example model.double()."
        )
    return number


def _wanted(threshold: Threshold, total: Any, entries: int) -> Any:
    """What has to be held, of a ``total`` mass or a number of entries."""
    share = threshold.value * total if threshold.kind == "mass" else (1 - threshold.value) * entries
    return share * (1 - 1e-9)  # or a rounding might ask for one entry more


class _Held:
    """What the entries above a number hold: their sum, or how many they are."""

    def __init__(self, entries: Tensor, mass: bool, scratch: Scratch) -> None:
        self._entries, self.mass = entries, mass
        above = scratch.like(entries, "above a threshold")
        self._above = torch.empty_like(entries) if above is None else above

    def __call__(self, t: float) -> float:
        if not self.mass:
            return float(np.count_nonzero(self._entries.numpy() > t))
        return _sum(torch.ops.aten.threshold.out(self._entries, t, 0.0, out=self._above))


def _sum(entries: Tensor) -> float:
    """In float64 alone it takes five times as long; in float32 alone it is too inexact, and may
    exceed the range where no entry does."""
    whole = len(entries) // _BLOCK * _BLOCK
    total = entries[:whole].reshape(-1, _BLOCK).sum(1).sum(dtype=torch.float64).item()
    if whole < len(entries):
        total += entries[whole:].sum(dtype=torch.float64).item()
    return entries.sum(dtype=torch.float64).item() if math.isinf(total) else total


def _by_mean(sample: Tensor, threshold: Threshold, _: Scratch) -> float:
    """A share of the mean of the entries that are not zero."""
    entries = _in_memory_order(sample)
    total = _check(_sum(entries), entries.dtype)
    number = entries.view(_BITS[entries.dtype]).count_nonzero().item()  # of floats it takes longer
    return threshold.value * total / max(1, number)


def _by_search(sample: Tensor, threshold: Threshold, scratch: Scratch) -> float:
    """By sorting the entries between two bounds, which are narrowed until few lie between."""
    entries, mass = _in_memory_order(sample), threshold.kind == "mass"
    largest = _check(entries.amax().item(), entries.dtype)
    held = _Held(entries, mass, scratch)
    total = _sum(entries) if mass else held(0.0)
    wanted = float(_wanted(threshold, total, len(entries)))
    if total <= wanted:
        return 0.0
    array: Any = entries.numpy()
    low, high, above = array.dtype.type(0), array.dtype.type(largest), 0.0
    if len(entries) > _FEW:
        low, high, above = _bounds(held, total, wanted, *_distribution(entries, high, mass))
    between = np.sort(array[(array > low) & (array <= high)])
    falling = between[::-1] if mass else np.ones(len(between))
    reached = above + np.cumsum(falling, dtype=np.float64)
    needed = int(np.searchsorted(reached, wanted))
    smallest = between[max(len(between) - 1 - needed, 0)]
    dropped = int(np.searchsorted(between, smallest))
    return float(between[dropped - 1] if dropped else array[array < smallest].max(initial=0))


def _bounds(
    held: _Held, total: float, wanted: float, shares: np.ndarray, numbers: np.ndarray
) -> tuple[Any, Any, float]:
    """Two numbers with few entries between them, or only equal ones, and what is held above both.

    Above the higher one less is held than wanted, above the lower one enough. By regula falsi
    along the distribution of some entries; an end that stays counts half (the "Illinois" rule),
    so that both ends move. From the second guess on it aims a little beyond, so that the other end
    is what moves.
    """
    real = numbers.dtype.type
    high, at_high, share_high, shortage = numbers[0], 0.0, 0.0, wanted
    low, at_low, share_low, surplus = numbers[-1], total, 1.0, total - wanted
    moved, passes, margin = 0, 0, 0.0
    while at_low - at_high > _FEW * (float(low) if held.mass else 1):
        first, last = np.nextafter(low, high), np.nextafter(high, low)
        if first == high:
            break
        passes += 1
        share = share_high + shortage / (shortage + surplus) * (share_low - share_high)
        share -= moved * margin
        guess = np.interp(share, shares, numbers) if passes < _PATIENCE else (low + high) / 2
        t = min(max(real(guess), first), last)
        enough = held(float(t))
        if enough >= wanted:
            low, at_low, share_low, surplus = t, enough, share, enough - wanted
            shortage, moved = (shortage / 2 if moved > 0 else shortage), 1
        else:
            high, at_high, share_high, shortage = t, enough, share, wanted - enough
            surplus, moved = (surplus / 2 if moved < 0 else surplus), -1
        margin = _FEW / 4 * (float(t) if held.mass else 1) / total
    return low, high, at_high


def _in_memory_order(sample: Tensor) -> Tensor:
    """The entries, flat, without a copy where they lie dense."""
    order = sorted(range(sample.ndim), key=sample.stride, reverse=True)
    return sample.permute(order).reshape(-1)


def _distribution(entries: Tensor, largest: Any, mass: bool) -> tuple[np.ndarray, np.ndarray]:
    """Falling numbers, and the share that the entries above each hold, of some entries."""
    stride = -(-len(entries) // _SOME)
    while math.gcd(stride, len(entries)) > 1 and stride > 1:
        stride += 1  # or it might see the same few maps at every position
    some = np.sort(entries[::stride].numpy())[::-1]
    held = np.cumsum(some if mass else some > 0, dtype=np.float64)
    shares = np.concatenate([[0.0], held / max(held[-1], 1e-300), [1.0]])
    ends = np.array([largest, 0.0], some.dtype)
    return shares, np.concatenate([ends[:1], some, ends[1:]])


def _by_histogram(p: Tensor, largest: Tensor, threshold: Threshold) -> Tensor:
    """As ``_by_search``, in a few operators none of which depends on what was found.

    So it can be exported, and a GPU never waits. A histogram with bins as wide as 2^(-1/1024)
    tells the bin of t, and another one, of the entries in that bin, the part of it.
    """
    mass, wide = threshold.kind == "mass", _exact(p)
    flat = p.flatten(1)
    weight = (flat if mass else flat > 0).to(wide)
    wanted = _wanted(threshold, weight.sum(1, keepdim=True), flat[:1].numel())
    top = largest[:, None].clamp(min=torch.finfo(p.dtype).tiny)
    last = BINS_PER_OCTAVE * OCTAVES
    edges = torch.exp2(-torch.arange(last + 1, device=p.device, dtype=p.dtype) / BINS_PER_OCTAVE)
    edges = F.pad(top * edges, [0, 1])  # falling; the last bin ends at zero
    share = (flat / top).clamp(min=2.0 ** -(OCTAVES + 1))
    bins = torch.floor(-BINS_PER_OCTAVE * torch.log2(share)).long().clamp(0, last)
    found, missing = _first_enough(bins, weight, last + 1, wanted)
    above, below = edges.gather(1, found), edges.gather(1, found + 1)
    part = (above - below) / PARTS
    parts = torch.floor((above - flat) / part.clamp(min=torch.finfo(p.dtype).tiny))
    weight = torch.where(bins == found, weight, 0.0)
    parts = parts.clamp(0, PARTS - 1).long()
    in_part, _ = _first_enough(parts, weight, PARTS, missing)
    inside = torch.where((bins == found) & (parts == in_part), flat, torch.inf)
    smallest = inside.amin(1, keepdim=True)
    # A compiler may work out bins twice, vectorised and not: an entry at an edge then lies in none.
    smallest = torch.where(torch.isinf(smallest), above - (in_part + 1) * part, smallest)
    return torch.where(flat < smallest, flat, 0.0).amax(1)


def _first_enough(bins: Tensor, weight: Tensor, count: int, wanted: Any) -> tuple[Tensor, Tensor]:
    """The first bin with which the wanted weight is reached, (N, 1), and what it must hold."""
    held = weight.new_zeros(weight.shape[0], count).scatter_add(1, bins, weight)
    reached = held.cumsum(1)
    found = (reached < wanted).sum(1, keepdim=True).clamp(max=count - 1)
    return found, wanted - (reached - held).gather(1, found)


def _exact(p: Tensor) -> torch.dtype:
    """What long sums are added up in: float64, but Apple's GPUs have nothing wider than float32."""
    return torch.float32 if p.device.type == "mps" else torch.float64
