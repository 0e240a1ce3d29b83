"""New calls in a graph, with the shapes of what they return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree


def call_before(node: fx.Node, operator: Any, *args: Any) -> fx.Node:
    """A new call before ``node``, of its layer."""
    with node.graph.inserting_before(node):
        new = node.graph.call_function(operator, args)
    new.meta = {**node.meta, "val": shaped(operator, *args)}
    return new


def call_after(operator: Any, x: fx.Node, *args: Any) -> fx.Node:
    """A new call right after ``x``."""
    with x.graph.inserting_after(x):
        node = x.graph.call_function(operator, (x, *args))
    node.meta = {**x.meta, "val": shaped(operator, x, *args)}
    return node


def shaped(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """What an operator returns, without values, so that the batch size stays open."""
    from torch._dispatch.python import enable_python_dispatcher

    nodes = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, fx.Node)]
    fakes = dict(zip(nodes, fake_of(nodes), strict=True))
    args, kwargs = fx.node.map_arg((args, kwargs), fakes.__getitem__)
    # Without the dispatcher the C++ code of some operators would ask for sizes as numbers.
    with enable_python_dispatcher():
        return operator(*args, **kwargs)


def fake_of(nodes: Sequence[fx.Node]) -> list[Any]:
    """The nodes' values as tensors of shapes alone, all of one mode."""
    values = [node.meta["val"] for node in nodes]
    modes = [value.fake_mode for value in values if isinstance(value, FakeTensor)]
    if not modes:
        return values
    return [
        modes[0].from_tensor(value)
        if isinstance(value, Tensor) and not isinstance(value, FakeTensor)
        else value
        for value in values
    ]
