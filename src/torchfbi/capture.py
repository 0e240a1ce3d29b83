"""From any ``nn.Module`` to a ``Graph``, without touching the module."""

from __future__ import annotations

import contextlib
import operator
import re
import threading
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.nn.parameter import is_lazy

from torchfbi import adjoints, folding, own, programs, rewrite
from torchfbi.errors import (
    CaptureError,
    ControlFlowError,
    InputError,
    OutputError,
    TrainingModeError,
    UnsupportedOperatorError,
    first_line,
)
from torchfbi.fingerprint import fingerprint
from torchfbi.graph import Graph
from torchfbi.quiet import quiet
from torchfbi.shadow import share_tensors
from torchfbi.tracing import traced_here

_cache: WeakKeyDictionary[Any, dict[Any, tuple[Any, Graph]]] = WeakKeyDictionary()
_lock = threading.Lock()

# They dump whole graphs before the exceptions that _diagnosis puts into words.
_NOISY = ("torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")

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
        OutputError: the module does not return one tensor and none was chosen.
        UnsupportedOperatorError: operators without an adjoint, all of them listed.
        CaptureError: torch.export failed for another reason.
    """
    _check_module(module)
    sizes = (example.shape[1:], example.dtype, example.device, output)
    with _lock:
        if anew:
            _cache.pop(module, None)
    looks = fingerprint(module)
    found = _cached(module, looks, example.shape[0], sizes)
    if found is not None:
        return found
    # Whatever torch.export says about its own internals, the user gets our error instead.
    with quiet("stderr", loggers=_NOISY), traced_here(), own.neutral(example.device):
        found = _cached(module, looks, example.shape[0], sizes)  # by another thread, meanwhile
        if found is not None:
            return found
        program = _exported(module, example)
        graph = _to_graph(program, output)
        if graph.batch is None:
            # They hold each other in a circle through C++, so that neither would ever be freed.
            programs.batch(program).node.shape_env.fake_tensor_cache.clear()
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


def _check_module(module: Any) -> None:
    if isinstance(module, ExportedProgram):
        return
    if isinstance(module, torch.jit.ScriptModule):
        raise CaptureError(
            "the model is a TorchScript module, which torch.export does not read: give the "
            "original nn.Module, or an exported program (torch.export.export)."
        )
    if not isinstance(module, nn.Module):
        raise CaptureError(f"the model must be a torch.nn.Module, not {type(module).__name__}.")
    if isinstance(module, fx.GraphModule):
        return  # exported programs turned into modules cannot change their mode
    if any(is_lazy(t) for t in (*module.parameters(), *module.buffers())):
        raise CaptureError("the model has lazy parts without weights yet: run it once first.")
    training = [name or "the model itself" for name, m in module.named_modules() if m.training]
    if training:
        shown = ", ".join(training[:3]) + (", ..." if len(training) > 3 else "")
        raise TrainingModeError(
            f"the model is in training mode ({shown}), where its answer depends on the batch "
            "and on chance: call model.eval() first."
        )


def _exported(module: nn.Module | ExportedProgram, example: Tensor) -> ExportedProgram:
    if isinstance(module, ExportedProgram):
        made_for = programs.sizes(module)
        if len(made_for) != example.ndim or any(
            programs.concrete(ours) not in (None, theirs)
            for ours, theirs in zip(made_for[1:], example.shape[1:], strict=True)
        ):
            raise InputError(
                f"the program was exported for inputs {tuple(made_for)}, not "
                f"{tuple(example.shape)}."
            )
        return module
    shadow = share_tensors(module)
    batch = example.shape[0]
    with contextlib.suppress(Exception):  # its code may want exactly the example's batch size
        program = _export(shadow, example, max(2, batch), any_batch=True)
        size = programs.batch_size(program)
        if size == batch or (size is None and _takes_any_batch(program, shadow, example)):
            return program
    try:
        return _export(shadow, example, batch)
    except Exception as error:
        raise _diagnosis(shadow, example, error) from error


def _export(
    module: nn.Module, example: Tensor, batch: int, any_batch: bool = False
) -> ExportedProgram:
    x = torch.empty(batch, *example.shape[1:], dtype=example.dtype, device=example.device)
    sizes = ({0: Dim.AUTO},) if any_batch else None
    return torch.export.export(module, (x,), dynamic_shapes=sizes, strict=False)


def _takes_any_batch(program: ExportedProgram, module: nn.Module, example: Tensor) -> bool:
    """Whether the module's code does the same to any number of images.

    While it is traced, PyTorch writes down what its code asks about the batch size; only whether
    there is more than one image it takes for granted, so that is tried.
    """
    if programs.batch(program).node.shape_env.guards:
        return False
    noise = torch.rand(1, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    traced, asked = (own.outputs(each, noise.to(example)) for each in (program, module))
    return all(map(own.agree, traced.values(), asked.values()))


def _diagnosis(module: nn.Module, example: Tensor, error: Exception) -> Exception:
    shape = tuple(example.shape)
    try:
        module(torch.zeros_like(example))
    except Exception as own:
        return InputError(f"the model rejects an input of shape {shape}: {first_line(own)}")
    text = str(error)
    if "data-dependent" in text or "dynamic control flow" in text:
        places = re.findall(r'File "(.+?)", line (\d+), in', text)
        where = f" ({places[-1][0]}, line {places[-1][1]})" if places else ""
        return ControlFlowError(
            f"the model's forward{where} decides by the values of a tensor which operators to "
            "run, so it has no single graph: replace the branch, for example by torch.where."
        )
    return CaptureError(f"torch.export could not capture the model: {first_line(error)}")


def _to_graph(program: ExportedProgram, output: int | str | None) -> Graph:
    if _has_inner_graphs(program) or rewrite.has_aliased_mutation(program.graph):
        # It also inlines the parts under another mode, with autocast's casts written out.
        program = program.run_decompositions({})
    graph, tensors, outputs = _lift(program)
    result = _choose(outputs, output)
    logits, head = rewrite.strip_head(result)
    ending = None if head is None else (result.target, result.args[1:], result.kwargs)
    graph.output(logits)
    rewrite.name_layers(graph)
    rewrite.canonicalise(graph, tensors)
    used = {str(node.target) for node in graph.find_nodes(op="get_attr")}
    constants = programs.owned({name: tensors[name] for name in sorted(used)}, program)
    for node in graph.find_nodes(op="get_attr"):
        node.meta["val"] = constants[str(node.target)]
    captured = Graph(graph, constants, programs.batch_size(program), head, ending)
    _check_operators(captured)
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
        raise InputError(f"the model takes {len(inputs)} inputs; torchfbi explains models of one.")
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
            missing.setdefault(str(unknown.target), []).append(unknown.meta["layer"])
        elif node in graph.path and node.op == "call_function" and _swallows(node):
            name = f"{node.target} by what depends on the image"
            missing.setdefault(name, []).append(node.meta["layer"])
    if missing:
        raise UnsupportedOperatorError(missing)


def _swallows(node: fx.Node) -> bool:
    """Whether the image reaches the node only where no signal goes back: 1 / (1 + x)."""
    inputs = [source for source in adjoints.tensor_arguments(node) if source.op != "get_attr"]
    if node.target in adjoints.SHAPE_ONLY or not inputs:
        return False
    return not adjoints.receivers(node)
