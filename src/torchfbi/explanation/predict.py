"""The captured network forwards only, as a function from images to probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from torchfbi.capture import own
from torchfbi.errors import TargetError
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method import heads
from torchfbi.method.graph import Graph

_networks: WeakKeyDictionary[Graph, dict[torch.device, fx.GraphModule]] = WeakKeyDictionary()


def executable(graph: Graph, replaced: Mapping[fx.Node, nn.Module] | None = None) -> fx.GraphModule:
    """The graph as a module from images (N, C, ...) to logits (N, classes, ...).

    Its parameters share memory with the user's and require no gradient.

    Args:
        graph: as captured; it is not changed.
        replaced: what stands in for some of its operators, each as a module called once.
    """
    calls, tensors = fx.Graph(), nn.Module()
    copies: dict[fx.Node, fx.Node] = {}
    result = calls.graph_copy(graph.calls, copies)
    calls.output(result)
    for name, tensor in graph.tensors.items():
        tensors.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    for node, module in (replaced or {}).items():
        copy = copies[node]
        copy.op, copy.target = "call_module", f"replaced_{node.name}"
        tensors.add_module(copy.target, module)
    return fx.GraphModule(tensors, calls).eval()


def graph_now(
    module: nn.Module | ExportedProgram, x: Tensor, output: int | str | None = None
) -> Graph:
    """The captured graph, held against the network's own answer to these images (N, C, ...): who
    asks no explainer asks here, since what is kept of a network may be of another day.

    Raises:
        CaptureError, InputError, NonFiniteError: as ``ForwardBackward``.
    """
    walker = ForwardBackward(module, x, output=output, low_memory=True)
    walker._see(x)
    return walker.graph


def network_of(graph: Graph, device: torch.device) -> fx.GraphModule:
    """``executable``, made once for each device."""
    made = _networks.setdefault(graph, {})
    if device not in made:
        with torch.inference_mode(False):  # whatever the caller's mode: autograd may need it later
            made[device] = executable(graph).to(device)
    return made[device]


def predictor(
    module: nn.Module | ExportedProgram, x: Tensor, output: int | str | None = None
) -> tuple[Callable[[Tensor], Tensor], bool]:
    """``prediction`` of a network as it is now.

    Args:
        module: as for ``capture``.
        x: images (N, C, ...), on which the captured network is held against the user's own.
        output: which output counts where there are several.

    Raises:
        CaptureError: the network cannot be captured.
        TargetError: its output is not (N, classes).
    """
    like = next(iter(module.parameters()), x)
    return prediction(graph_now(module, x.to(like.device), output), x.device)


def prediction(graph: Graph, device: torch.device) -> tuple[Callable[[Tensor], Tensor], bool]:
    """The network as a function to probabilities, and whether its classes exclude each other.

    Args:
        graph: of the network, held against its own answer.
        device: where the images will lie.

    Returns:
        A function from images (M, C, ...), however many, to probabilities (M, classes); and
        False where they come from a sigmoid, so that several classes can be present.

    Raises:
        TargetError: its output is not (N, classes).
    """
    dimensions = graph.logits.meta["val"].ndim
    if dimensions != 2:
        raise TargetError(
            f"the network's output has {dimensions} dimensions: only the classes of an output (N, "
            "classes) can be verified, since of other outputs nobody can say when they are kept."
        )
    network, fixed = network_of(graph, device), graph.batch

    def predict(images: Tensor) -> Tensor:
        count = len(images)
        if fixed is not None:  # the code wants so many at a time
            missing = -count % fixed
            images = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])
        with own.undirected(device):
            parts = [network(part) for part in torch.split(images, fixed or count)]
        logits = torch.cat(parts)[:count]
        wide = torch.promote_types(logits.dtype, torch.float32)
        return heads.probabilities(logits.to(wide), graph.head)

    single = graph.logits.meta["val"].shape[1] == 1
    return predict, not (graph.head == "sigmoid" or (graph.head is None and single))
