"""Timing several things against each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

Calls = Mapping[str, Callable[[], object]]


class Spread(NamedTuple):
    """The median of some numbers, and the quartiles below and above it."""

    median: float
    low: float
    high: float


def measure(
    calls: Calls,
    repeats: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time the calls in turn, so that whatever else the machine does meets them all.

    Every second round goes backwards: nobody always finds the memory as the same one left it.

    Args:
        calls: by name what is timed.
        repeats: how many rounds.
        warmup: how many calls of each go before, untimed.
        clock: seconds from any start.

    Returns:
        By name the seconds of each round.
    """
    names = list(calls)
    for name in names:
        for _ in range(warmup):
            calls[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        for name in reversed(names) if number % 2 else names:
            start = clock()
            calls[name]()
            seconds[name].append(clock() - start)
    return seconds


def settled() -> float:
    """The time at which an accelerator has done all that it was asked for, in seconds."""
    torch.accelerator.synchronize()
    return time.perf_counter()


def spread(numbers: Sequence[float]) -> Spread:
    """Median and quartiles, linear between neighbours."""
    low, median, high = np.quantile(numbers, [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high))


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> Spread:
    """Of each round's time to that of the reference in the same round: a machine that slows down
    slows both."""
    return spread([a / b for a, b in zip(seconds, reference, strict=True)])
