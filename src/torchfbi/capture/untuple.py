"""Operators that return several tensors become several operators that return one."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from torchfbi.capture.calls import call_before

aten = torch.ops.aten


def untuple(graph: fx.Graph) -> None:
    """Replace what is taken out of a tuple by an operator that returns just that."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is operator.getitem:
            source, index = node.args
            if replacement := _part(node, source, index):
                node.target, node.args = replacement
                node.kwargs = {}


def _part(node: fx.Node, source: fx.Node, index: int) -> tuple[Any, tuple[Any, ...]] | None:
    if source.op != "call_function":
        return None
    target = source.target
    args: Any = source.args  # as the schemas below have them
    if target in (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default,
                  aten.split.sizes, aten.tensor_split.sections):  # fmt: skip
        dim = args[2] % args[0].meta["val"].ndim
        sizes = [part.shape[dim] for part in source.meta["val"]]
        start = sum(sizes[:index])
        return aten.slice.Tensor, (args[0], dim, start, start + sizes[index], 1)
    if target is aten.unbind.int:
        return aten.select.int, (*args, index)
    if index != 0:
        return None
    if target in _CHOICES:
        return _gathered(node, source, *_CHOICES[target])
    if target in (aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default):
        return _MAX_POOLS[len(args[1])], args
    if target in _ADAPTIVE_MAX_POOLS:
        return _equal_windows(*args) or _winners(node, source)
    if target is aten._native_batch_norm_legit_no_training.default:
        x, weight, bias, mean, var, momentum, eps = args
        return aten.batch_norm.default, (x, weight, bias, mean, var, False, momentum, eps, True)
    if target is aten.native_layer_norm.default:
        return aten.layer_norm.default, (*args, True)
    return None


_CHOICES: dict[Any, tuple[int, int | None]] = {
    aten.max.dim: (1, 2),
    aten.min.dim: (1, 2),
    aten.median.dim: (1, 2),
    aten.nanmedian.dim: (1, 2),
    aten.mode.default: (1, 2),
    aten.kthvalue.default: (2, 3),
    aten.topk.default: (2, None),
    aten.sort.default: (1, None),
    aten.sort.stable: (1, None),
    aten.cummax.default: (1, None),
    aten.cummin.default: (1, None),
}
"""Operators that choose entries along a dimension: which argument is the dimension, and which says
whether a single entry keeps it."""


def _gathered(
    node: fx.Node, source: fx.Node, dim_at: int, keeps_at: int | None
) -> tuple[Any, tuple[Any, ...]] | None:
    """What was chosen, taken from where it was: the choice itself is held constant."""
    args: Any = source.args
    x, dim = args[0], args[dim_at] if dim_at < len(args) else source.kwargs.get("dim", -1)
    if x.meta["val"].ndim == 0:
        return None
    index = call_before(node, operator.getitem, source, 1)
    if keeps_at is None or args[keeps_at]:
        return aten.gather.default, (x, dim, index)
    index = call_before(node, aten.unsqueeze.default, index, dim)
    return aten.squeeze.dim, (call_before(node, aten.gather.default, x, dim, index), dim)


def _winners(node: fx.Node, source: fx.Node) -> tuple[Any, tuple[Any, ...]]:
    """Adaptive max pooling over windows of several sizes: each takes its largest entry."""
    x, outputs = source.args
    ndim = x.meta["val"].ndim  # type: ignore[union-attr]
    first = ndim - len(outputs)  # type: ignore[arg-type]
    index = call_before(node, operator.getitem, source, 1)
    flat = call_before(node, aten.flatten.using_ints, x, first, ndim - 1)
    index = call_before(node, aten.flatten.using_ints, index, first, ndim - 1)
    taken = call_before(node, aten.gather.default, flat, first, index)
    shape = node.meta["val"].shape
    return aten.reshape.default, (taken, [-1, *shape[1:]])


_MAX_POOLS = {
    1: aten.max_pool1d.default,
    2: aten.max_pool2d.default,
    3: aten.max_pool3d.default,
}
_ADAPTIVE_MAX_POOLS = {
    aten.adaptive_max_pool1d.default,
    aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
}


def _equal_windows(x: fx.Node, outputs: list[int]) -> tuple[Any, tuple[Any, ...]] | None:
    """Adaptive max pooling as the ordinary one, where its windows are all of one size."""
    inputs = x.meta["val"].shape[2:]
    if any(n % out for n, out in zip(inputs, outputs, strict=True)):
        return None
    kernel, dims = [n // out for n, out in zip(inputs, outputs, strict=True)], len(outputs)
    return _MAX_POOLS[dims], (x, kernel, kernel, [0] * dims, [1] * dims, False)
