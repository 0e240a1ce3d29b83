"""When the forward pass lets memory go, and where it writes over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from torchfbi.adjoints import find, is_tensor, tensor_arguments
from torchfbi.graph import Graph
from torchfbi.settings import Settings

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Schedule:
    """What the forward pass does beside computing.

    Args:
        graph, settings: for which it is the plan.
        releases: for each node the values that are used there for the last time and that the
            walk does not read.
        in_place: the operator that writes over its first argument, for the nodes that may.
    """

    graph: Graph
    settings: Settings
    releases: dict[fx.Node, list[fx.Node]]
    in_place: dict[fx.Node, Any]

    def __reduce__(self) -> Any:
        return schedule, (self.graph, self.settings)

    def __deepcopy__(self, memo: Any) -> Schedule:
        return self  # nothing ever writes to it


def schedule(graph: Graph, settings: Settings) -> Schedule:
    """Plan the forward pass for backward walks under these settings."""
    kept = _kept(graph, settings)
    last: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        for source in node.all_input_nodes:
            last[source] = node
    releases: dict[fx.Node, list[fx.Node]] = {node: [] for node in graph.nodes}
    for source, node in last.items():
        if source.op == "call_function" and is_tensor(source) and source not in kept:
            releases[node].append(source)
    in_place = {
        node: _IN_PLACE[node.target]
        for node in graph.nodes
        if node.target in _IN_PLACE and _may_be_written(node.args[0], node, kept)
    }
    return Schedule(graph, settings, releases, in_place)


def _kept(graph: Graph, settings: Settings) -> set[fx.Node]:
    """The nodes whose forward values the backward walk reads."""
    kept = {graph.image, graph.logits, *graph.stations}
    for node in graph.nodes:
        rule = find(node.target)
        if node not in graph.path or rule is None:
            continue
        reads = rule.reads(settings)
        if "inputs" in reads:
            kept.update(tensor_arguments(node))
        if "output" in reads:
            kept.add(node)
    return kept


def _may_be_written(source: Any, node: fx.Node, kept: set[fx.Node]) -> bool:
    """Whether nobody else sees the memory of ``source``, and the result fits into it."""
    if not isinstance(source, fx.Node) or source in kept or source.target not in _NEW_MEMORY:
        return False
    ours, result = source.meta["val"], node.meta["val"]
    return (
        len(source.users) == 1
        and ours.dtype == result.dtype
        and ours.ndim == result.ndim
        and str(ours.shape) == str(result.shape)
    )


_IN_PLACE = {
    aten.relu.default: aten.relu_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
    aten.clamp.default: aten.clamp_.default,
    aten.silu.default: aten.silu_.default,
    aten.hardswish.default: aten.hardswish_.default,
    aten.add.Tensor: aten.add_.Tensor,
}
_NEW_MEMORY = {
    aten.convolution.default,
    aten.linear.default,
    aten.batch_norm.default,
    aten.add.Tensor,
}
"""Operators whose result is never a view."""
