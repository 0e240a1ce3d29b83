"""The weights of the excitation walk, made once where making them takes as long as using them."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Use = Literal["plain", "magnitude", "excited", "side by side", "above each other"]
"""What weights are made of a layer's own W:

- ``plain``: W itself;
- ``magnitude``: |W| gamma / 2;
- ``excited``: W + gamma W+;
- ``side by side``: W (1 + gamma / 2) and |W| gamma / 2, for twice as many inputs;
- ``above each other``: W + gamma W+ and W + gamma W-, for twice as many outputs.
"""


def weights(use: Use, weight: Tensor, half: float, keep: bool = False) -> Tensor:
    """The weights for a use.

    Args:
        half: gamma / 2.
        keep: they are kept as long as the layer's own are, and made again when those were written
            to.
    """
    if use == "plain":
        return weight
    if not keep or weight.is_inference():  # of which nobody counts what is written to them
        return _MAKE[use](weight, half)
    known = _MADE.setdefault(weight, {})
    made_for, found = known.get(use, (None, weight))
    if made_for != (weight._version, half):
        found = _MAKE[use](weight, half)
        known[use] = (weight._version, half), found  # of the latest gamma alone
    return found


def _excited(weight: Tensor, half: float) -> Tensor:
    return weight.abs().mul_(half).add_(weight, alpha=1 + half)


def _side_by_side(weight: Tensor, half: float) -> Tensor:
    return _laid_out(torch.cat([weight * (1 + half), weight.abs().mul_(half)], 1))


def _above_each_other(weight: Tensor, half: float) -> Tensor:
    size, rest = weight.abs().mul_(half), weight * (1 + half)
    return _laid_out(torch.cat([rest + size, rest - size]))


def _laid_out(weight: Tensor) -> Tensor:
    images = weight.ndim == 4
    return weight.contiguous(memory_format=torch.channels_last) if images else weight


_MAKE: dict[Use, Callable[[Tensor, float], Tensor]] = {
    "magnitude": lambda weight, half: weight.abs().mul_(half),
    "excited": _excited,
    "side by side": _side_by_side,
    "above each other": _above_each_other,
}
_MADE: MutableMapping[Tensor, dict[Use, tuple[Any, Tensor]]] = WeakTensorKeyDictionary()
