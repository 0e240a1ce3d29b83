"""What the forward pass keeps for the walk, when it lets memory go, and where it writes over it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from torchfbi.engine.rules import values_read
from torchfbi.engine.segments import Segment, segments
from torchfbi.engine.sides import gated_behind
from torchfbi.method import tokens
from torchfbi.method.adjoints import is_tensor
from torchfbi.method.graph import Graph
from torchfbi.method.selection import passes_by_sign
from torchfbi.method.settings import Settings

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Plan:
    """What a forward pass does beside computing.

    Args:
        nodes: what is run.
        releases: for each node the values that are used there for the last time and that nobody
            reads later.
        in_place: the operator that writes over its first argument, for the nodes that may.
        signs: for each node the values that are used there for the last time and of which only
            the signs are read later, where nobody looks at the walk.
    """

    nodes: list[fx.Node]
    releases: dict[fx.Node, list[fx.Node]]
    in_place: dict[fx.Node, Any]
    signs: dict[fx.Node, list[fx.Node]]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The forward pass, and the parts of the walk.

    Args:
        graph, settings, low_memory: for which it is.
        forward: the plan of the forward pass.
        gated: see ``sides.gated_behind``.
        parts: each part of the walk in the order of the forward pass: its operators, and the plan
            to run them again first, or None where the forward pass kept what the walk reads.
    """

    graph: Graph
    settings: Settings
    low_memory: bool
    forward: Plan
    gated: dict[fx.Node, fx.Node]
    parts: list[tuple[list[fx.Node], Plan | None]]


def schedule(graph: Graph, settings: Settings, low_memory: bool = False) -> Schedule:
    """Plan backward walks under these settings.

    Args:
        low_memory: keep only what crosses the borders of segments, and run them again.
    """
    gated = gated_behind(graph, settings)
    by_rules = {node: _reads(graph, node, settings, gated) for node in graph.nodes}
    stops = stations(graph, settings)
    reads = {node: read | ({node} & stops) for node, read in by_rules.items()}
    ends = {graph.image, graph.logits}
    if not low_memory:
        by_sign = set(graph.features).difference(ends, *by_rules.values())
        by_sign = by_sign if _signs_decide(settings) else set()
        forward = _plan(graph.nodes, ends.union(*reads.values()), by_sign)
        return Schedule(graph, settings, low_memory, forward, gated, [(graph.nodes, None)])
    cut = segments(graph.nodes, reads)
    crossing = set[fx.Node]().union(*(segment.crossing for segment in cut))
    forward = _plan(graph.nodes, ends | crossing)
    parts: list[tuple[list[fx.Node], Plan | None]] = [
        (segment.nodes, _again(segment, reads, ends)) for segment in cut
    ]
    return Schedule(graph, settings, low_memory, forward, gated, parts)


def stations(graph: Graph, settings: Settings) -> set[fx.Node]:
    """Where the walk stops to look or filter: the features, and where it looks at evidence."""
    evidence = graph.resolutions if settings.values == "evidence" else ()
    return {*graph.features, *evidence}


def _again(segment: Segment, reads: dict[fx.Node, set[fx.Node]], ends: set[fx.Node]) -> Plan:
    """What crosses a border is not written over: other segments start from it as well."""
    kept = ends.union(segment.crossing, *(reads[node] for node in segment.nodes))
    return _plan(segment.nodes, kept)


def _plan(nodes: Iterable[fx.Node], kept: set[fx.Node], by_sign: Collection[fx.Node] = ()) -> Plan:
    """The plan to run ``nodes`` where the values in ``kept`` are read later, some by their sign."""
    nodes = list(nodes)
    last = {source: node for node in nodes for source in node.all_input_nodes}
    releases: dict[fx.Node, list[fx.Node]] = {node: [] for node in nodes}
    for source, node in last.items():
        if source.op == "call_function" and is_tensor(source) and source not in kept:
            releases[node].append(source)
    in_place = {
        node: _IN_PLACE[node.target]
        for node in nodes
        if node.target in _IN_PLACE and _may_be_written(node.args[0], node, kept)
    }
    signs: dict[fx.Node, list[fx.Node]] = {node: [] for node in nodes}
    for source in by_sign:
        signs[last[source]].append(source)
    return Plan(nodes, releases, in_place, signs)


def _reads(
    graph: Graph, node: fx.Node, settings: Settings, gated: dict[fx.Node, fx.Node]
) -> set[fx.Node]:
    """The forward values that the adjoint of a node reads, and what adds up contributions."""
    if node not in graph.path:
        return set()
    gamma = settings.gamma if node in graph.hidden else 0.0
    own = {source for source in tokens.joins(node) if source.op == "call_function"}
    return values_read(node, settings, gamma, gated) | own


def _signs_decide(settings: Settings) -> bool:
    """Whether nothing on the way back asks more of an activation than if it is positive."""
    return passes_by_sign(settings) and settings.values == "signal"


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
