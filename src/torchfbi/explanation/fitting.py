"""The tau that fits a network: it is a scale, and the paper's 10.0 is that of its VGG-16."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import Tensor

from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.seeds import Target

_DECADES = 8
"""Below the tau that was asked for."""


def fitting_tau(walker: ForwardBackward, x: Tensor, target: Target, walks: int = 1) -> float | None:
    """The largest tau of the series 1, 2, 5, 10, ... below the walker's own at which something
    reaches each image.

    Args:
        walker: of settings with a tau.
        x, target, walks: as for ``ForwardBackward.walk``.

    Returns:
        The number; None if nothing does down to a hundred millionth of the tau asked for.
    """
    assert walker.settings.tau is not None
    for tau in _falling(walker.settings.tau):
        other = copy.copy(walker)
        other.settings = walker.settings.override(tau=tau)
        values, _ = other.walk(x, target, walks=walks)
        if values.flatten(1).any(1).all():
            return tau
    return None


def _falling(tau: float) -> Iterator[float]:
    """The numbers of the series below tau, each as it is written."""
    exponent = int(f"{tau:e}".partition("e")[2])
    for power in range(exponent, exponent - _DECADES, -1):
        for digit in (5, 2, 1):
            number = float(f"{digit}e{power}")
            if number < tau:
                yield number
