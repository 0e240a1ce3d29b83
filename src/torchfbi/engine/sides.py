"""What signs and zeros are known of before anything is computed."""

from __future__ import annotations

import torch
from torch import fx

from torchfbi.method.adjoints import tensor_arguments
from torchfbi.method.graph import Graph, is_activation
from torchfbi.method.settings import Settings

aten = torch.ops.aten


def positive_inputs(graph: Graph) -> set[fx.Node]:
    """The hidden layers of which no input is negative."""
    positive = set[fx.Node]()
    for node in graph.nodes:
        keeps = node.target in _KEEPS_SIGN and positive.issuperset(node.all_input_nodes)
        if keeps or _rectifies(node):
            positive.add(node)
    return {node for node in graph.hidden if tensor_arguments(node)[0] in positive}


def rectified_outputs(graph: Graph, settings: Settings) -> set[fx.Node]:
    """The hidden layers whose outputs are rectified: where one is negative no signal comes back
    through a gate that knows of it."""
    if settings.gates == "rectify":
        return set()
    return {node for node in graph.hidden if all(map(_rectifies, node.users))}


def gated_behind(graph: Graph, settings: Settings) -> dict[fx.Node, fx.Node]:
    """The hidden layers whose excitation takes over the gate of the one activation function behind
    them, by layer: the gate times z is that function's value, which is there already."""
    if not settings.gamma or settings.gates not in ("held", "derivative"):
        return {}
    found = {}
    for node in rectified_outputs(graph, settings):
        users = list(node.users)
        linear = users[0].target is aten.relu.default or settings.gates == "held"
        if len(users) == 1 and linear and users[0] in graph.features:
            found[node] = users[0]
    return found


def keeps_zero_maps(graph: Graph) -> set[fx.Node]:
    """The nodes whose adjoint returns zero for a map that is zero in the signal."""
    return {
        node
        for node in graph.path
        if graph.channel[node] == 1 and (is_activation(node) or node.target is aten.add.Tensor)
    }


def _rectifies(node: fx.Node) -> bool:
    """Whether it returns nothing negative, and zero wherever its input is."""
    if node.target in (aten.hardtanh.default, aten.clamp.default):
        low, high = (*node.args[1:], None, None)[:2]
        below = isinstance(high, int | float) and high < 0
        return isinstance(low, int | float) and low == 0 and not below
    return node.target is aten.relu.default


_KEEPS_SIGN = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
    aten.cat.default,
    aten.reshape.default,
    aten.flatten.using_ints,
}
"""Of inputs that are not negative they return nothing that is."""
