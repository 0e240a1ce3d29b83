"""The captured network: its operators in order, its tensors, and what the walk must know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.method.adjoints import find, receivers, tensor_arguments
from torchfbi.method.heads import Head, Tail
from torchfbi.method.maps import channel_dim

aten = torch.ops.aten

AFFINE = {aten.convolution.default, aten.linear.default}
"""The layers that the excitation walk knows."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A model as a functional graph of ATen operators.

    Args:
        calls: one placeholder (the image), ``get_attr`` nodes (tensors), calls, one output node.
        tensors: the values of the ``get_attr`` nodes: the graph's own, whatever is written to the
            network's later.
        batch: the only batch size the model allows, or None where it takes any.
        tail: what was stripped behind the logits, or None where the model ends at them.
    """

    calls: fx.Graph
    tensors: dict[str, Tensor]
    batch: int | None
    tail: Tail | None

    @property
    def head(self) -> Head | None:
        """What makes probabilities of classes out of the logits."""
        return None if self.tail is None else self.tail.head

    def finish(self, logits: Tensor) -> Tensor:
        """What the network itself returns where its logits are these."""
        return logits if self.tail is None else self.tail(logits)

    @cached_property
    def nodes(self) -> list[fx.Node]:
        """All operators in the order of the forward pass."""
        return [node for node in self.calls.nodes if node.op == "call_function"]

    @cached_property
    def constants(self) -> list[fx.Node]:
        """The network's own tensors."""
        return [node for node in self.calls.nodes if node.op == "get_attr"]

    @cached_property
    def image(self) -> fx.Node:
        """The input."""
        return next(node for node in self.calls.nodes if node.op == "placeholder")

    @cached_property
    def logits(self) -> fx.Node:
        """The node at which the seed is put."""
        (result,) = self.calls.output_node().args
        assert isinstance(result, fx.Node)
        return result

    @cached_property
    def path(self) -> set[fx.Node]:
        """The nodes that the signal can reach from the logits. Gates are not among them."""
        reached = {self.logits}
        for node in reversed(self.nodes):
            if node in reached:
                reached.update(receivers(node))
        return reached

    @cached_property
    def features(self) -> list[fx.Node]:
        """The outputs of activation functions on the path: the paper's a^(l)."""
        return [n for n in self.nodes if n in self.path and is_activation(n)]

    @cached_property
    def top_feature(self) -> fx.Node | None:
        """The last feature with spatial extent, the paper's "top convolutional layer"."""
        return next((node for node in reversed(self.features) if is_spatial(node)), None)

    @cached_property
    def narrow(self) -> list[fx.Node]:
        """The tensors with spatial extent that no shortcut goes around: all signal passes through
        each of them. Image and logits are not among them."""
        order = [self.image, *self.nodes]
        position, reaches = {node: i for i, node in enumerate(order)}, 0  # where values are used
        found = []
        for i, node in enumerate(order):
            if node in self.path and reaches <= i and is_spatial(node):
                found.append(node)
            if node in self.path or node is self.image:
                uses = (position[user] for user in node.users if user in self.path)
                reaches = max(reaches, *uses, i)
        return [node for node in found if node is not self.image and node is not self.logits]

    @cached_property
    def top_layer(self) -> fx.Node | None:
        """The paper's "top convolutional layer": the last feature with spatial extent, or where it
        has branches the tensor in which they meet again."""
        if self.top_feature is None:
            return None
        behind = self.nodes[self.nodes.index(self.top_feature) :]
        same_dimensions = (
            node
            for node in self.narrow
            if node in behind and node.meta["val"].ndim == self.top_feature.meta["val"].ndim
        )
        return next(same_dimensions, self.top_feature)

    @cached_property
    def resolutions(self) -> list[fx.Node]:
        """Where evidence is looked at: for each spatial size the tensor closest to the image
        through which all signal passes, in the order of the walk; empty where there is none.

        Such a tensor has the image's dimensions and lies behind an affine layer: before the first
        there is nothing but the image.
        """
        position = {node: i for i, node in enumerate(self.nodes)}
        affine = [position[node] for node in self.path if node.target in AFFINE]
        found: dict[tuple[str, ...], fx.Node] = {}
        for node in self.narrow:
            shape, channel = node.meta["val"].shape, channel_dim(node)
            behind = bool(affine) and position[node] >= min(affine)
            same = str(shape[0]) == str(self.image.meta["val"].shape[0])  # no windows among them
            alike = same and len(shape) == self.image.meta["val"].ndim
            if behind and alike and not _is_bordered(node):
                size = [str(n) for dim, n in enumerate(shape) if dim not in (0, channel)]
                found.setdefault(tuple(size), self._activated(node))
        return list(reversed(found.values()))

    def _activated(self, node: fx.Node) -> fx.Node:
        """The feature that a tensor becomes at once: its evidence is the same where gates are
        held, f(x) = x g(x), and the walk keeps it anyway."""
        user = next(iter(node.users), node)
        return user if len(node.users) == 1 and user in self.features else node

    @cached_property
    def hidden(self) -> set[fx.Node]:
        """The affine layers between two others: not those that see the image itself, whose values
        are signed as people chose, and not those that the seed reaches first: it contrasts their
        units."""
        affine = {node for node in self.path if node.target in AFFINE}
        behind, before = set[fx.Node](), set[fx.Node]()
        for node in self.nodes:
            sources = [source for source in receivers(node) if node in self.path]
            if any(source in affine or source in behind for source in sources):
                behind.add(node)
        for node in reversed(self.nodes):
            if any(user in affine or user in before for user in node.users if user in self.path):
                before.add(node)
        return affine & behind & before

    # The walk asks the following at every operator, and each answer costs as much as a small one.

    @cached_property
    def channel(self) -> dict[fx.Node, int]:
        """Which dimension of the values counts the feature maps, for the nodes on the path."""
        return {node: channel_dim(node) for node in (self.image, *self.path)}

    @cached_property
    def spatial(self) -> set[fx.Node]:
        """The nodes on the path whose value has more than one position."""
        return {node for node in (self.image, *self.path) if is_spatial(node)}

    @cached_property
    def sources(self) -> dict[fx.Node, list[fx.Node]]:
        """The tensor arguments of each operator, as ``adjoints.tensor_arguments`` lists them."""
        return {node: tensor_arguments(node) for node in self.nodes}

    @cached_property
    def _nested(self) -> set[fx.Node]:
        """The operators that take lists of tensors, or tensors by name."""
        return {
            node
            for node in self.nodes
            if {a for a in node.args if isinstance(a, fx.Node)} != set(node.all_input_nodes)
        }

    def arguments(self, node: fx.Node, value: Callable[[fx.Node], Any]) -> tuple[Any, Any]:
        """An operator's arguments, with what ``value`` says in place of each node."""
        if node in self._nested:
            return fx.node.map_arg((node.args, node.kwargs), value)
        args = [
            value(argument) if isinstance(argument, fx.Node) else argument for argument in node.args
        ]
        return args, node.kwargs

    def __deepcopy__(self, memo: Any) -> Graph:
        return self  # nothing ever writes to it

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} operators, {len(self.features)} features)"


def _is_bordered(node: fx.Node) -> bool:
    """Whether there is a border of other numbers than zero, such as the minus infinity around what
    is pooled: it speaks for nothing in the image."""
    return node.target is aten.constant_pad_nd.default and node.args[2:] not in ((), (0,))


def is_activation(node: fx.Node) -> bool:
    """Whether the node is an activation function, whose output is a feature: one number a sample
    is none, nor are rows of tokens before the samples, as maps are chosen sample by sample."""
    found = find(node.target)
    if found is None or not found.activation:
        return False
    shape = node.meta["val"].shape
    return len(shape) > 1 and not any(isinstance(size, torch.SymInt) for size in shape[1:])


def is_spatial(node: fx.Node) -> bool:
    """Whether the node's value is a stack of maps with more than one position."""
    shape = node.meta["val"].shape
    if len(shape) < 3:
        return False
    channel = channel_dim(node)
    # A batch's free size, wherever it went, is not one; to compare it would be traced in an export.
    return any(str(size) != "1" for dim, size in enumerate(shape) if dim not in (0, channel))
