"""A graph of calls as plain values and back, since PyTorch's operators cannot be pickled."""

from __future__ import annotations

import copyreg
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from torchfbi.method.graph import Graph


class Call(NamedTuple):
    """One node.

    Args:
        op, name, target, args, kwargs: as in ``fx.Node``; an operator is an ``Operator``, and
            another node a ``Result``.
        layer: its name for people, or None.
        value: shape and dtype of its value, or None where it is no tensor.
    """

    op: str
    name: str
    target: Any
    args: Any
    kwargs: Any
    layer: str | None
    value: tuple[tuple[int, ...], torch.dtype] | None


class Operator(NamedTuple):
    """An operator of PyTorch by its name, ``"aten.relu.default"``."""

    name: str


class Result(NamedTuple):
    """The value of the node of this name."""

    name: str


def pack(graph: fx.Graph) -> list[Call]:
    """Everything about a graph that its walk needs."""
    return [
        Call(
            node.op,
            node.name,
            Operator(str(node.target)) if _is_operator(node.target) else node.target,
            fx.node.map_arg(node.args, lambda source: Result(source.name)),
            fx.node.map_arg(node.kwargs, lambda source: Result(source.name)),
            node.meta.get("layer"),
            _facts(node.meta.get("val")),
        )
        for node in graph.nodes
    ]


def unpack(calls: list[Call]) -> fx.Graph:
    """The graph that was packed."""
    graph, made = fx.Graph(), dict[str, fx.Node]()

    def restored(value: Any) -> Any:
        if isinstance(value, Result):
            return made[value.name]
        if isinstance(value, tuple | list):
            return type(value)(map(restored, value))
        if isinstance(value, dict):
            return {key: restored(entry) for key, entry in value.items()}
        return value

    for call in calls:
        target = call.target
        if isinstance(target, Operator):
            target = torch.ops
            for part in call.target.name.split("."):
                target = getattr(target, part)
        args, kwargs = restored(call.args), restored(call.kwargs)
        node = made[call.name] = graph.create_node(call.op, target, args, kwargs, call.name)
        if call.layer is not None:
            node.meta["layer"] = call.layer
        if call.value is not None:
            shape, dtype = call.value
            node.meta["val"] = torch.empty(shape, dtype=dtype, device="meta")
    return graph


def _is_operator(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload)


def _facts(value: Any) -> tuple[tuple[int, ...], torch.dtype] | None:
    if not isinstance(value, Tensor):
        return None
    # An open batch size is that of the example; the walk asks for no more than the others.
    shape = (size if isinstance(size, int) else size.node.hint for size in value.shape)
    return tuple(shape), value.dtype


def _reduced(graph: Graph) -> Any:
    return _restored, (pack(graph.calls), graph.tensors, graph.batch, graph.tail)


def _restored(calls: list[Call], *rest: Any) -> Graph:
    return Graph(unpack(calls), *rest)


copyreg.pickle(Graph, _reduced)
