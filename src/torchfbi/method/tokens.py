"""What reaches the network's own vectors, position embeddings or a class token's start, instead of
the image: it is counted, so that it is not lost without a word."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.method.adjoints import is_held, tensor_arguments
from torchfbi.method.walk import Step

aten = torch.ops.aten

_SUMS = {aten.add.Tensor, aten.sub.Tensor}
_ROWS = {aten.cat.default, aten.stack.default}


def joins(node: fx.Node) -> list[fx.Node]:
    """The tensors of the network's own that a node adds to what depends on the image, or puts
    beside it; none at other operators."""
    if node.target not in _SUMS and node.target not in _ROWS:
        return []
    return [source for source in tensor_arguments(node) if is_held(source)]


def reached(step: Step, total: dict[str, Tensor], samples: int) -> None:
    """Add up what each tensor that ``joins`` contributes to the answer: the sum of itself times the
    signal that reached it.

    Args:
        step: at any operator.
        total: by the tensors' names, (N,) float each; added to.
        samples: N.
    """
    node, s = step.node, step.signal
    if not joins(node):
        return
    sources = tensor_arguments(node)
    if node.target in _SUMS:
        alpha: Any = node.kwargs.get("alpha", 1)
        parts = [s, s * (alpha if node.target is aten.add.Tensor else -alpha)]
    else:
        dim: Any = node.args[1] if len(node.args) > 1 else 0
        sizes = [source.meta["val"].shape[dim] for source in sources]
        stacked = node.target is aten.stack.default
        parts = list(s.unbind(dim) if stacked else torch.split(s, sizes, dim))
    for source, part in zip(sources, parts, strict=False):
        if is_held(source):
            each = (part * step.values[source]).movedim(_samples_dim(node, samples), 0)
            name, found = name_of(source), each.reshape(samples, -1).sum(1)
            total[name] = total[name] + found if name in total else found


def _samples_dim(node: fx.Node, samples: int) -> int:
    """The dimension that counts the samples, or their parts: transformers of before have rows of
    tokens first."""
    shape = list(node.meta["val"].shape)
    free = [dim for dim, size in enumerate(shape) if not isinstance(size, int)]
    return free[0] if free else shape.index(samples) if samples in shape else 0


def name_of(node: fx.Node) -> str:
    """The parameters behind a tensor of the network's own, ``"pos_embed"``."""
    found, queue = list[str](), [node]
    while queue:
        source = queue.pop()
        if source.op == "get_attr":
            found += (source.meta.get("layer") or str(source.target)).split(" + ")
        queue += tensor_arguments(source)
    first, more = list(dict.fromkeys(found))[:2], len(set(found)) > 2
    return " + ".join([*first, "..."] if more else first) or "constant"


def shares(contributions: dict[str, Tensor]) -> dict[str, Tensor]:
    """Which share of the answer each source contributes.

    Args:
        contributions: what each source contributes, (N,), of either sign.

    Returns:
        For the same names, (N,) float in [0, 1]: magnitudes as shares of their sum, so that all
        sum to 1; zeros for samples where nothing arrived anywhere.
    """
    if not contributions:  # nothing arrived anywhere
        return {}
    total = torch.stack([part.abs() for part in contributions.values()]).sum(0)
    whole = torch.where(total > 0, total, 1.0)
    return {name: part.abs() / whole for name, part in contributions.items()}
