"""From any ``nn.Module`` to a ``Graph``, without touching the module."""

from __future__ import annotations

import operator
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from torchfbi.capture import folding, own, programs, rewrite, traces
from torchfbi.capture.exporting import exported
from torchfbi.capture.fingerprint import fingerprint
from torchfbi.capture.refusals import check_module
from torchfbi.capture.share import uncompiled
from torchfbi.errors import (
    CaptureError,
    InputError,
    OutputError,
    TorchFBIError,
    UnsupportedOperatorError,
    first_line,
)
from torchfbi.method import adjoints
from torchfbi.method.graph import Graph
from torchfbi.system.quiet import quiet
from torchfbi.system.tracing import traced_here

_cache: WeakKeyDictionary[Any, dict[Any, tuple[Any, Graph]]] = WeakKeyDictionary()
_lock = threading.Lock()

# They dump whole graphs before the exceptions that ``exporting`` puts into words.
_NOISY = ("torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")

aten = torch.ops.aten

SIZES_KEPT = 4
"""How many graphs of one module are kept: each may hold its own folded copy of the weights."""


def capture(
    module: nn.Module | ExportedProgram,
    example: Tensor,
    output: int | str | None = None,
    *,
    anew: bool = False,
) -> Graph:
    """The functional operator graph of ``module`` for inputs like ``example``.

    The module is not changed in any way: a copy that shares its tensors is traced, on fake
    data. The graph owns its tensors: it is the network of this moment. It takes any batch size,
    unless the model's code asks for it, and exactly the example's other sizes. It is cached for as
    long as the module lives and looks the same, for each shape, dtype and device of the example;
    what looks the same may compute something else, which ``captured`` finds out.

    Args:
        module: a network of one input tensor in evaluation mode, or an exported program.
        example: a tensor (N, C, ...); only its shape, dtype and device count.
        output: which output is explained, by key or position; None where there is only one.
        anew: whatever is cached for the module is forgotten first.

    Raises:
        TrainingModeError: a part of the module is in training mode.
        InputError: the module itself rejects such an input.
        ControlFlowError: the module's Python code depends on the values of a tensor.
        RandomnessError: the answer depends on chance, in evaluation mode too.
        OutputError: the module does not return one tensor and none was chosen.
        UnsupportedOperatorError: operators without an adjoint, all of them listed.
        CaptureError: torch.export failed for another reason.
    """
    module = uncompiled(module) if isinstance(module, nn.Module) else module
    check_module(module)
    sizes = (example.shape[1:], example.dtype, example.device, output)
    with _lock:
        if anew:
            _cache.pop(module, None)
    looks = fingerprint(module)
    found = _cached(module, looks, example.shape[0], sizes)
    if found is not None:
        return found
    # Whatever torch.export says about its own internals, the user gets our error instead.
    with (
        quiet("stderr", loggers=_NOISY),
        traced_here(),
        own.neutral(example.device),
        traces.without_sources(),
    ):
        found = _cached(module, looks, example.shape[0], sizes)  # by another thread, meanwhile
        if found is not None:
            return found
        program = exported(module, example)
        graph = _to_graph(program, output)
        if program is not module:
            traces.forget(program)
        with _lock:
            cached = _cache.setdefault(module, {})
            if len(cached) >= SIZES_KEPT:
                cached.pop(next(iter(cached)))  # the oldest
            cached[(graph.batch, *sizes)] = (looks, graph)
        return graph


def _cached(module: Any, looks: Any, batch: int, sizes: Any) -> Graph | None:
    with _lock:
        cached = _cache.get(module, {})
        for key in ((None, *sizes), (batch, *sizes)):
            if key in cached and cached[key][0] == looks:
                return cached[key][1]
    return None


def _to_graph(program: ExportedProgram, output: int | str | None) -> Graph:
    try:
        if _has_inner_graphs(program) or rewrite.has_aliased_mutation(program.graph):
            # It also inlines the parts under another mode, with autocast's casts written out.
            program = program.run_decompositions({})
        # Before anything runs on its tensors and fixes their sizes.
        batch = programs.batch_size(program)
        graph, tensors, outputs = _lift(program)
        logits, tail = rewrite.strip_tail(_choose(outputs, output))
        graph.output(logits)
        rewrite.name_layers(graph)
        rewrite.canonicalise(graph, tensors)
    except TorchFBIError:
        raise
    except Exception as error:
        raise CaptureError(
            f"the operators that torch.export found could not be rewritten: {first_line(error)}"
        ) from error
    used = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    constants = programs.owned({name: tensors[name] for name in sorted(used)}, program)
    for node in graph.find_nodes(op="get_attr"):
        node.meta["val"] = constants[str(node.target)]
    captured = Graph(graph, constants, batch, tail)
    _check_operators(captured)
    if 0 in [size for size in captured.logits.meta["val"].shape[1:] if isinstance(size, int)]:
        raise OutputError(
            f"the model returns {tuple(captured.logits.meta['val'].shape)}: there is no class."
        )
    if batch is not None and (answers := captured.logits.meta["val"].shape[0]) != batch:
        raise OutputError(f"the model returns {answers} answers for {batch} images, not one each.")
    return captured


def _has_inner_graphs(program: ExportedProgram) -> bool:
    """Whether parts are graphs of their own: branches, or what runs under another mode."""
    return bool(program.graph.find_nodes(op="get_attr"))


def _lift(
    program: ExportedProgram,
) -> tuple[fx.Graph, dict[str, Tensor], dict[str, fx.Node]]:
    """The program's calls in a new graph, its lifted tensors as ``get_attr`` nodes again, and
    its floating-point outputs by key."""
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    inputs = [name for name, spec in specs.items() if spec.kind == InputKind.USER_INPUT]
    if len(inputs) != 1:
        several = "give explain all of them, (image, other)" if inputs else "there is no image"
        raise InputError(f"the model takes {len(inputs)} inputs: {several}.")
    if _has_inner_graphs(program):
        raise CaptureError(
            "the model branches or loops by an operator such as torch.cond, so it has no single "
            "graph: replace that, for example by torch.where."
        )
    graph, tensors, copies = fx.Graph(), dict[str, Tensor](), dict[fx.Node, fx.Node]()
    nodes = {node.name: node for node in program.graph.nodes}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name != inputs[0]:
            target = specs[node.name].target
            value = program.state_dict.get(target, program.constants.get(target))
            copies[node] = folding.add_tensor(graph, tensors, node.name, value)
            copies[node].meta["layer"] = target
        elif node.op != "output":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    outputs = {
        key: copies[node]
        for key, name in programs.output_names(program).items()
        if (node := nodes.get(name)) is not None
        if adjoints.is_tensor(node) and node.meta["val"].is_floating_point()
    }
    return graph, tensors, outputs


def _choose(outputs: dict[str, fx.Node], output: int | str | None) -> fx.Node:
    if output is None and len(outputs) == 1:
        return next(iter(outputs.values()))
    if output is not None and str(output) in outputs:
        return outputs[str(output)]
    if not outputs:
        raise OutputError("the model returns no floating-point tensor, so there are no logits.")
    wanted = "" if output is None else f" and none is called {output!r}"
    raise OutputError(
        f"the model returns {len(outputs)} tensors{wanted}: "
        f"choose output= one of {', '.join(map(repr, outputs))}."
    )


def _check_operators(graph: Graph) -> None:
    missing: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node in graph.path and adjoints.find(node.target) is None:
            several = node.target is operator.getitem  # one of an operator's several outputs
            unknown = node.all_input_nodes[0] if several else node
            target = unknown.target
            name = str(target) if hasattr(target, "_schema") else target.__name__  # type: ignore[union-attr]
            missing.setdefault(name, []).append(unknown.meta["layer"])
        elif node in graph.path and _over_samples(node):
            name = f"{node.target} over the samples of a batch"
            missing.setdefault(name, []).append(node.meta["layer"])
        elif node in graph.path and _is_softmax(node):
            name = f"{node.target} of exponentials and their sum, a softmax,"
            missing.setdefault(name, []).append(node.meta["layer"])
        elif node in graph.path and (_swallows(node) or _depends_twice(node)):
            several = node.target in adjoints.attention.PRODUCTS
            what = "of two activations" if several else "by what depends on the image"
            name = f"{node.target} {what}"
            missing.setdefault(name, []).append(node.meta["layer"])
    if missing:
        raise UnsupportedOperatorError(missing)


def _swallows(node: fx.Node) -> bool:
    """Whether the image reaches the node only where no signal goes back: 1 / (1 + x)."""
    inputs = [source for source in adjoints.tensor_arguments(node) if source.op != "get_attr"]
    if node.target in adjoints.SHAPE_ONLY or not inputs:
        return False
    return not adjoints.receivers(node)


def _depends_twice(node: fx.Node) -> bool:
    """Whether an activation has a second argument that depends on the image: x ** y(x)."""
    found = adjoints.find(node.target)
    others = adjoints.tensor_arguments(node)[1:]
    return found is not None and found.activation and any(a.op != "get_attr" for a in others)


def _is_softmax(node: fx.Node) -> bool:
    """Whether exponentials are divided by what depends on them. To hold that would be a guess at
    what the softmax weighs."""
    factors = [argument for argument in node.args if isinstance(argument, fx.Node)]
    if node.target not in (aten.div.Tensor, aten.mul.Tensor) or len(factors) < 2:
        return False
    pairs = [factors, factors[::-1]][: 1 if node.target is aten.div.Tensor else 2]
    for exponential, other in pairs:
        queue, seen = [other], set[fx.Node]()
        while queue and exponential.target is aten.exp.default:
            current = queue.pop()
            if current.target is aten.exp.default and current.args == exponential.args:
                return True
            if current not in seen:
                seen.add(current)
                queue += current.all_input_nodes
    return False


def _over_samples(node: fx.Node) -> bool:
    """Whether one sample's answer is computed from others', which the walk takes for alone."""
    target: Any = node.target
    if target in (aten.matmul.default, aten.bmm.default):  # of matrices that hold the samples
        return any(
            not isinstance(size, int)
            for factor in adjoints.tensor_arguments(node)[1:]
            for size in factor.meta["val"].shape[-2:]
        )
    along = _ALONG.get(target)
    if along is None:
        return False
    shape: Any = node.all_input_nodes[0].meta["val"].shape
    dims: Any = node.args[along] if len(node.args) > along else None
    if target in (aten.layer_norm.default, aten.rms_norm.default):
        dims = range(-len(dims), 0)
    dims = range(len(shape)) if dims is None or dims == [] else dims
    dims = [dims] if isinstance(dims, int) else dims
    return any(not isinstance(shape[dim], int) for dim in dims if shape)  # a batch of any size


_ALONG = {
    aten.flip.default: 1,
    aten.roll.default: 2,
    aten.cumsum.default: 1,
    aten.gather.default: 1,
    aten.index_select.default: 1,
    aten.unfold.default: 1,
    aten.sum.dim_IntList: 1,
    aten.sum.default: 1,
    aten.mean.dim: 1,
    aten.mean.default: 1,
    aten.amax.default: 1,
    aten.amin.default: 1,
    aten.select.int: 1,
    aten.layer_norm.default: 1,
    aten.rms_norm.default: 1,
}
"""Operators along dimensions, and which argument says which; none stands for all."""
