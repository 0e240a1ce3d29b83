"""Composite operators without an adjoint, in PyTorch's own parts.

PyTorch defines most of its operators by others (``torch._decomp``, and C++ code that calls further
operators). What lies on the signal's way and has no adjoint is replaced by these parts, until only
operators with an adjoint are left; if any is left without one the operator stays as it was, to be
refused by its own name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from torchfbi.capture.calls import fake_of
from torchfbi.capture.canonical import SPELLED, spell_out
from torchfbi.capture.folding import Tensors, add_tensor, fold_constants
from torchfbi.capture.untuple import untuple
from torchfbi.method import adjoints

aten = torch.ops.aten

_WHOLE = {
    aten._softmax.default,
    aten._log_softmax.default,
    aten.softmax.int,
    aten.log_softmax.int,
    aten.native_layer_norm.default,
    aten.native_group_norm.default,
    aten._native_batch_norm_legit_no_training.default,
}
"""They mean more than their parts: what a softmax weighs is another question than what an
exponential and a sum do."""

_PRODUCTS = {
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.mm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.matmul.default,
}
_GATED = {aten.glu.default}
"""Operators whose product of two parts is a gate, as they are documented. In any other a product
or quotient of what depends on the image would hold a factor that nobody called a gate."""


def decompose(graph: fx.Graph, tensors: Tensors) -> None:
    """Replace composite operators on the signal's way by operators that have an adjoint."""
    tried = set[fx.Node]()
    while node := _next(graph, tried):
        tried.add(node)
        part = _parts(node, tensors)
        if part is not None and _hands_back(part, node):
            _inline(part, node)
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def _next(graph: fx.Graph, tried: set[fx.Node]) -> fx.Node | None:
    """The last operator on the signal's way without an adjoint that was not tried yet."""
    reached = set(graph.output_node().all_input_nodes)
    for node in reversed(graph.nodes):
        if node not in reached or node.op != "call_function":
            continue
        composite = hasattr(node.target, "_schema") and node.target not in _WHOLE
        if composite and adjoints.find(node.target) is None and node not in tried:
            return node
        taken = node.target is operator.getitem  # one of the outputs of an operator of several
        reached.update(node.all_input_nodes if taken else adjoints.receivers(node))
    return None


@cache
def _table() -> dict[Any, Callable[..., Any]]:
    """PyTorch's decompositions of what has neither an adjoint nor a spelling that has one."""
    import torch._refs  # it registers more of them
    from torch._decomp import decomposition_table

    return {
        composite: parts
        for composite, parts in decomposition_table.items()
        if isinstance(composite, torch._ops.OpOverload)
        and torch.Tag.core not in composite.tags  # the small set that is left of all others
        and adjoints.find(composite) is None
        and composite not in SPELLED | _WHOLE
    }


def _parts(node: fx.Node, tensors: Tensors) -> fx.Graph | None:
    """The operator as a graph of others: its image-dependent inputs are placeholders."""
    from torch._dispatch.python import enable_python_dispatcher
    from torch.fx.experimental.proxy_tensor import make_fx

    composite: Any = node.target
    leaves, structure = pytree.tree_flatten((list(node.args), dict(node.kwargs)))
    sources = [leaf for leaf in leaves if isinstance(leaf, fx.Node) and adjoints.is_tensor(leaf)]
    if any(isinstance(leaf, fx.Node) and leaf not in sources for leaf in leaves):
        return None  # a size that is computed from the batch's
    sources = list(dict.fromkeys(sources))

    def run(*values: Tensor) -> Any:
        given = dict(zip(sources, values, strict=True))
        args, kwargs = pytree.tree_unflatten(
            [given.get(leaf, leaf) if isinstance(leaf, fx.Node) else leaf for leaf in leaves],
            structure,
        )
        return composite(*args, **kwargs)

    try:
        values = fake_of(sources)
        with enable_python_dispatcher():
            traced = make_fx(
                torch.func.functionalize(run),  # some are written with assignments to a buffer
                decomposition_table=_table(),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
            )(*values)
    except Exception:  # there is no decomposition, or none for these sizes
        return None
    part, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    placeholders = iter(sources)
    for inner in traced.graph.nodes:
        if inner.op == "placeholder":
            source = next(placeholders)
            constant = source.op == "get_attr"
            name = str(source.target) if constant else source.name
            copies[inner] = part.create_node("get_attr" if constant else "placeholder", name)
            copies[inner].meta = dict(source.meta)
        elif inner.op == "get_attr":
            value = getattr(traced, str(inner.target))
            copies[inner] = add_tensor(part, tensors, f"{node.name}_{inner.name}", value)
        else:
            copies[inner] = part.node_copy(inner, copies.__getitem__)
    if {n.target for n in part.nodes if n.op == "call_function"} == {composite}:
        return None
    _canonical(part, tensors)
    return part


def _canonical(part: fx.Graph, tensors: Tensors) -> None:
    for node in list(part.nodes):
        if node.op == "call_function" and node.target in _COPIES:
            node.replace_all_uses_with(node.args[0])
            part.erase_node(node)
    fold_constants(part, tensors)
    spell_out(part)
    untuple(part)
    part.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    fold_constants(part, tensors)


_COPIES = {
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
}


def _hands_back(part: fx.Graph, node: fx.Node) -> bool:
    """Whether every operator on the signal's way through the parts has an exact adjoint."""
    reached = set(part.output_node().all_input_nodes)
    for inner in reversed(part.nodes):
        if inner not in reached or inner.op != "call_function":
            continue
        if inner.target in _PRODUCTS and node.target not in _GATED:
            varying = [a for a in adjoints.tensor_arguments(inner) if a.op != "get_attr"]
            if len(varying) > 1:
                return False
        receivers = adjoints.receivers(inner)
        lost = not receivers and inner.target not in adjoints.SHAPE_ONLY
        if adjoints.find(inner.target) is None or lost:
            return False
        reached.update(receivers)
    return any(n in reached for n in part.nodes if n.op == "placeholder")


def _inline(part: fx.Graph, node: fx.Node) -> None:
    """Put the parts in the operator's place, under names of its own layer."""
    graph, copies = node.graph, dict[fx.Node, fx.Node]()
    sources = {source.name: source for source in node.all_input_nodes}
    counts: dict[str, int] = {}
    with graph.inserting_before(node):
        for inner in part.nodes:
            if inner.op == "placeholder":
                copies[inner] = sources[str(inner.target)]
            elif inner.op != "output":
                copies[inner] = copy = graph.node_copy(inner, copies.__getitem__)
                operation = str(inner.target).removeprefix("aten.").split(".")[0]
                counts[operation] = counts.get(operation, 0) + 1
                number = "" if counts[operation] == 1 else f":{counts[operation]}"
                copy.meta["layer"] = f"{node.meta['layer']}.{operation}{number}"
    (result,) = part.output_node().args
    if isinstance(result, fx.Node):
        copies[result].meta["layer"] = node.meta["layer"]
        node.replace_all_uses_with(copies[result])
    else:
        for user in list(node.users):
            user.replace_all_uses_with(copies[result[user.args[1]]])  # type: ignore[index]
            graph.erase_node(user)
    graph.erase_node(node)
