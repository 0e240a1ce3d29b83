"""Controls that need a method or a measurement: another class's map, a random head's, an oracle."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from torchfbi import metrics
from torchfbi.evaluate import peers
from torchfbi.evaluate.peers import Method
from torchfbi.evaluate.peers.network import graph_of, probabilities_of

CELLS = 7
"""Cells a side that the oracle orders."""

_random_heads: WeakKeyDictionary[nn.Module, dict[int, nn.Module]] = WeakKeyDictionary()


def other_class(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """The default's values for a class drawn at random from the others, (N, C, H, W)."""
    classes = graph_of(module, x).logits.meta["val"].shape[1]
    generator = torch.Generator().manual_seed(seed)
    step = int(torch.randint(1, max(2, classes), (), generator=generator))
    return _DEFAULT.attribute(module, x, (target + step) % classes, seed)


def random_head(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """The default's values for the network with a random last layer, (N, C, H, W)."""
    known = _random_heads.setdefault(module, {})
    if seed not in known:
        known[seed] = metrics.randomise_head(module, seed)
    return _DEFAULT.attribute(known[seed], x, target, seed)


def oracle(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """See ``metrics.greedy_oracle``, on 7 x 7 cells and by blur, (N, 1, H, W)."""
    height, width = x.shape[2:]
    cells = metrics.cells(height, width, min(CELLS, height, width))
    found = metrics.greedy_oracle(
        probabilities_of(module, x), x, target, cells, metrics.removal(x, "blur")
    )
    return found[:, None]


_DEFAULT = peers.METHODS["fbi"]

_ALL = [
    Method(
        "fbi-other-class",
        "control",
        _DEFAULT.reduction,
        "fbi, for a random other class",
        other_class,
    ),
    Method(
        "fbi-random-head",
        "control",
        _DEFAULT.reduction,
        "fbi, for the network with a random last layer",
        random_head,
    ),
    Method(
        "oracle",
        "control",
        "positive",
        "the greedy order of 49 cells by the gain itself: what coarse maps could reach",
        oracle,
    ),
]

CONTROLS = {method.name: method for method in _ALL}
"""By name. The oracle costs 392 passes an image."""
