"""From torch.export's graph to ours: functional, folded, in a small canonical vocabulary.

Every pass takes the fx graph and the tensors behind its ``get_attr`` nodes and changes both in
place; the tensors themselves are never written to.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from torchfbi.capture.canonical import spell_out
from torchfbi.capture.decompose import decompose
from torchfbi.capture.folding import Tensors, fold_affine, fold_constants, fold_padding
from torchfbi.capture.holding import hold
from torchfbi.capture.untuple import untuple
from torchfbi.errors import OutputError, RandomnessError
from torchfbi.method.heads import Tail
from torchfbi.system.layout import laid_out

aten = torch.ops.aten


def canonicalise(graph: fx.Graph, tensors: Tensors) -> None:
    """Run all passes. ``graph`` must be functional (see ``has_aliased_mutation``)."""
    drop_checks(graph)
    drop_identities(graph)
    refuse_chance(graph)
    use_functional_operators(graph)
    drop_copies(graph)
    fold_constants(graph, tensors)  # a weight that was cast is a weight
    spell_out(graph)
    untuple(graph)
    drop_dead(graph)
    fold_constants(graph, tensors)
    hold(graph)
    decompose(graph, tensors)
    fold_constants(graph, tensors)
    fold_padding(graph, tensors)
    fold_affine(graph, tensors)
    drop_dead(graph)
    hold(graph)  # what was decomposed may multiply as well
    lay_out_weights(graph, tensors)


def drop_dead(graph: fx.Graph) -> None:
    """Remove what the logits do not depend on."""
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def lay_out_weights(graph: fx.Graph, tensors: Tensors) -> None:
    """Lay the weights of convolutions out once, as each convolution would every time."""
    for node in graph.nodes:
        weight: Any = node.args[1] if node.target is aten.convolution.default else None
        if weight is not None and weight.op == "get_attr":
            tensors[weight.target] = laid_out(tensors[weight.target].detach())


def drop_checks(graph: fx.Graph) -> None:
    """Remove assertions: they check what torch.export assumed, not what the model computes."""
    for node in reversed(graph.nodes):
        name = str(node.target)
        if node.op == "call_function" and ("_assert" in name or "sym_constrain" in name):
            graph.erase_node(node)


def refuse_chance(graph: fx.Graph) -> None:
    """Refuse what is drawn at random whenever the network runs, in evaluation mode too.

    Raises:
        RandomnessError: the logits depend on it.
    """
    graph.eliminate_dead_code(
        is_impure_node=lambda node: node.op in ("placeholder", "output") or _is_inplace(node)
    )
    drawn = [node for node in graph.nodes if node.op == "call_function" and _is_drawn(node)]
    if drawn:
        rows = "\n".join(f"  {node.target}  at {node.meta['layer']}" for node in drawn)
        raise RandomnessError(
            "the model's answer depends on chance although it is in evaluation mode, so there is "
            f"no one answer to explain:\n{rows}\nPass training=self.training to the functions of "
            "dropout, and add noise while training only; a traced graph keeps the mode that it was "
            "traced in: call eval() before."
        )


def _is_drawn(node: fx.Node) -> bool:
    """Whether an operator draws random numbers, with the arguments that it has here."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    schema: Any = node.target._schema  # type: ignore[union-attr]
    given = {a.name: a.default_value for a in schema.arguments} | node.kwargs
    given.update(zip((a.name for a in schema.arguments), node.args, strict=False))
    share = given.get("p", given.get("dropout_p", 1))
    return given.get("train", given.get("training", True)) and share != 0


_DROPOUTS = {
    overload
    for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    for overload in (getattr(aten, name).default, getattr(aten, f"{name}_").default)
}
"""Identities, unless they are on (see ``refuse_chance``)."""

_IDENTITIES = {
    *_DROPOUTS,
    aten.detach.default,
    aten.detach_.default,
    aten.alias.default,
    aten.lift_fresh.default,
}
"""They return the very tensor that they were given."""

_COPIES = {
    aten.clone.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
}
"""They return its values in new memory, or may."""


def drop_identities(graph: fx.Graph) -> None:
    """Remove operators that return their input, among them dropout at inference."""
    _drop(graph, lambda node: node.target in _IDENTITIES and not _is_drawn(node))
    _drop(graph, _pools_nothing)


def _pools_nothing(node: Any) -> bool:
    """VGG's 7 x 7 maps, averaged to 7 x 7."""
    sizes = node.args[1] if node.target is aten.adaptive_avg_pool2d.default else None
    return sizes is not None and list(sizes) == list(node.args[0].meta["val"].shape[2:])


def drop_copies(graph: fx.Graph) -> None:
    """Remove copies, and casts to the same dtype: nothing is written to any more."""
    _drop(
        graph,
        lambda node: (
            node.target in _COPIES
            or (
                str(node.target).startswith(("aten.to.", "aten._to_copy"))
                and node.meta["val"].dtype == node.args[0].meta["val"].dtype
            )
        ),
    )


def _drop(graph: fx.Graph, same: Callable[[Any], bool]) -> None:
    for node in list(graph.nodes):
        if node.op == "call_function" and same(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def has_aliased_mutation(graph: fx.Graph) -> bool:
    """Whether memory that an in-place operator wrote to is read later under another name.

    Where it is not, the operator can simply be replaced by its functional twin: a slice that is
    written to and then used alone is no reason for torch.export's decomposition, which takes
    several times as long as the capture.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}
    memory: dict[fx.Node, fx.Node] = {}  # the first name of the memory that a tensor lies in
    tensor: dict[fx.Node, fx.Node] = {}  # the first name of the very same tensor
    sharing: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        source = node.args[0] if node.args and (_is_inplace(node) or _is_view(node)) else node
        if not isinstance(source, fx.Node):
            return True
        memory[node] = memory.get(source, node)
        same = _is_inplace(node) or node.target in _IDENTITIES
        tensor[node] = tensor[source] if same else node
        sharing.setdefault(memory[node], []).append(node)
    for node in filter(_is_inplace, graph.nodes):
        if memory[node].op != "call_function":
            return True  # the image or a parameter
        others = [n for n in sharing[memory[node]] if tensor[n] is not tensor[node]]
        stale = (n for n in others if order[n] < order[node])
        if any(order[user] > order[node] for n in stale for user in n.users):
            return True
    return False


def written(graph: fx.Graph) -> list[str]:
    """The names of the inputs, such as parameters, to whose memory an operator writes."""
    first: dict[fx.Node, fx.Node] = {}  # of the names of the memory that a tensor lies in
    found: list[str] = []
    for node in graph.nodes:
        source = node.args[0] if node.args and (_is_inplace(node) or _is_view(node)) else node
        first[node] = first.get(source, node) if isinstance(source, fx.Node) else node
        if _is_inplace(node) and first[node].op == "placeholder":
            found.append(first[node].name)
    return found


def _is_inplace(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable) and node.target not in _IDENTITIES


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.target is operator.getitem
    aliases = not schema.is_mutable and any(r.alias_info is not None for r in schema.returns)
    return aliases or node.target in _IDENTITIES


def use_functional_operators(graph: fx.Graph) -> None:
    """relu_ becomes relu, add_ becomes add, and who reads the old name later reads the new one."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.op == "call_function" and _is_inplace(node):
            written, now = node.args[0], order[node]
            written.replace_all_uses_with(
                node, delete_user_cb=lambda user, now=now: order[user] > now
            )
            node.target = _functional(node.target)


def _functional(inplace: Any) -> Any:
    """The operator's twin of the same arguments: pow_.Scalar is not pow.Scalar, but
    pow.Tensor_Scalar."""
    packet = getattr(aten, inplace._schema.name.split("::")[1].removesuffix("_"))
    wanted = [(argument.name, str(argument.type)) for argument in inplace._schema.arguments]
    twins = [getattr(packet, name) for name in packet.overloads()]
    return next(
        twin
        for twin in twins
        if not twin._schema.is_mutable
        and [(argument.name, str(argument.type)) for argument in twin._schema.arguments] == wanted
    )


_TAILS: dict[Any, Any] = {
    aten.softmax.int: "softmax",
    aten._softmax.default: "softmax",
    aten.log_softmax.int: "log_softmax",
    aten._log_softmax.default: "log_softmax",
    aten.sigmoid.default: "sigmoid",
    aten.special_expit.default: "sigmoid",
}
_VIEWS = {
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.contiguous.default,
}


def strip_tail(result: fx.Node) -> tuple[fx.Node, Tail | None]:
    """The logits behind a softmax or sigmoid at the very end (section 2: the seed is put at z),
    with a dimension of classes, and what was stripped. Only shapes may change behind it."""
    views, last = list[Any](), result
    while last.target in _VIEWS and isinstance(last.args[0], fx.Node):
        views.append(last)
        last = last.args[0]
    function, dim, flat = _TAILS.get(last.target), 1, result.meta["val"].ndim == 1
    if function in ("softmax", "log_softmax"):
        shape, chosen = last.meta["val"].shape, last.args[1]
        dim = chosen % len(shape) if isinstance(chosen, int) else 0
        keeps = all(str(view.meta["val"].shape[:2]) == str(shape[:2]) for view in views)
        function = function if (dim == 1 and keeps) or (dim > 1 and not views) else None
    if result.meta["val"].ndim == 0:
        raise OutputError("the model returns one number for the whole batch, not one an image.")
    if function is not None:
        source: Any = last.args[0]
        if views:
            views[-1].replace_input_with(last, source)
        else:
            result = source
    if flat:
        logits = result.graph.call_function(aten.unsqueeze.default, (result, 1))
        logits.meta = {**result.meta, "val": result.meta["val"].unsqueeze(1)}
        result = logits
    return result, Tail(function, dim, flat) if function or flat else None


def name_layers(graph: fx.Graph) -> None:
    """Give each call a unique ``meta["layer"]``: the module's path, as ``named_modules`` has it.

    A call made directly in the forward of a block is named after the block and the operator
    (``layer1.0.add``); a module called again gets a number (``layer1.0.relu:2``).
    """
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        path, leaf = _module_path(node)
        operation = getattr(node.target, "__name__", str(node.target)).split(".")[0].rstrip("_")
        base = path if leaf else ".".join(filter(None, [path, operation]))
        counts[base] = counts.get(base, 0) + 1
        node.meta["layer"] = base if counts[base] == 1 else f"{base}:{counts[base]}"


def _module_path(node: fx.Node) -> tuple[str, bool]:
    entries = (node.meta.get("nn_module_stack") or {}).values()
    # torch.export has a name of its own for what no module called.
    stack = [entry for entry in entries if not str(entry[0]).startswith("_empty_nn_module_stack")]
    if not stack:
        return "", False
    path, kind = stack[-1][0], stack[-1][1]
    name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    is_leaf = name.startswith("torch.nn.modules") and "container" not in name
    return str(path).split("@")[0], is_leaf
