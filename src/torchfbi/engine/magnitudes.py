"""The weights of the excitation walk, made once where making them takes as long as using them."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_MADE: MutableMapping[Tensor, dict[tuple[str, float], tuple[int, Tensor]]] = (
    WeakTensorKeyDictionary()
)


def magnitude(weight: Tensor, half: float, keep: bool) -> Tensor:
    """|W| gamma / 2.

    Args:
        half: gamma / 2.
        keep: it is kept as long as the weights are, and made again when they were written to.
    """
    return _made("magnitude", weight, half, keep, lambda: weight.abs().mul_(half))


def excited(weight: Tensor, half: float, keep: bool) -> Tensor:
    """W + gamma W+."""
    return _made(
        "excited", weight, half, keep, lambda: weight.abs().mul_(half).add_(weight, alpha=1 + half)
    )


def side_by_side(weight: Tensor, half: float, keep: bool) -> Tensor:
    """W (1 + gamma / 2) and |W| gamma / 2, which hand one signal to twice as many inputs."""

    def make() -> Tensor:
        both = torch.cat([weight * (1 + half), weight.abs().mul_(half)], 1)
        return both.contiguous(memory_format=torch.channels_last) if both.ndim == 4 else both

    return _made("side by side", weight, half, keep, make)


def _made(use: str, weight: Tensor, half: float, keep: bool, make: Callable[[], Tensor]) -> Tensor:
    if not keep or weight.is_inference():  # of which nobody counts what is written to them
        return make()
    known = _MADE.setdefault(weight, {})
    version, found = known.get((use, half), (None, weight))
    if version != weight._version:
        found = make()
        known[use, half] = weight._version, found
    return found
