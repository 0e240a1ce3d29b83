"""How sure a share is that was counted in few trials."""

from __future__ import annotations

from collections.abc import Callable
from math import comb


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact confidence interval of a binomial share (Clopper and Pearson 1934).

    Its ends are the shares at which a count as high, or as low, as the one seen would have a
    probability of (1 - confidence) / 2.

    Args:
        successes: how many trials succeeded, 0 to ``trials``.
        trials: how many there were, >= 1.
        confidence: in (0, 1).

    Returns:
        low, high: with 0 <= low <= successes / trials <= high <= 1.
    """
    tail = (1 - confidence) / 2

    def at_least(share: float) -> float:
        return sum(_probability(k, trials, share) for k in range(successes, trials + 1))

    def at_most(share: float) -> float:
        return sum(_probability(k, trials, share) for k in range(successes + 1))

    low = 0.0 if successes == 0 else _crossing(lambda share: at_least(share) > tail)
    high = 1.0 if successes == trials else _crossing(lambda share: at_most(share) < tail)
    return low, high


def _probability(k: int, trials: int, share: float) -> float:
    return comb(trials, k) * share**k * (1 - share) ** (trials - k)


def _crossing(beyond: Callable[[float], bool]) -> float:
    """Where in (0, 1) ``beyond`` becomes true; 60 halvings are finer than a float."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high
