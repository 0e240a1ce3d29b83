"""Contrastive excitation backprop on the captured network (Zhang et al. 2016).

Each operator is replaced by one that has the same output and hands back marginal winning
probabilities in place of a gradient: at an affine operator of non-negative activations a,
P_j = a_j sum_k w+_kj P_k / sum_i w+_ki a_i (equation 5); activations hand them through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from torchfbi.errors import CaptureError
from torchfbi.evaluate.peers.network import Operator, graph_of, to_image, top_layer, with_backward
from torchfbi.explanation.predict import executable
from torchfbi.method import adjoints
from torchfbi.method.graph import Graph, is_activation
from torchfbi.method.maps import channel_dim

aten = torch.ops.aten

FINEST = 4
"""The map is read at the last feature that is at most so many times coarser than the image: the
second pooling of a VGG, as in the authors' experiments."""

_HANDED_ON = (
    *(aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default),
    *(aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.permute.default),
    *(aten.squeeze.dims, aten.squeeze.dim, aten.unsqueeze.default, aten.constant_pad_nd.default),
)
"""Operators whose gradient moves probabilities without changing them."""


def contrastive_excitation_backprop(
    module: nn.Module, x: Tensor, target: Tensor, seed: int
) -> Tensor:
    """What excites the class, less what excites its opposite, whose weights are the negative ones.

    Both probabilities are propagated from the logit to the top layer (section 3.3), and their
    difference from there to a finer feature (see ``FINEST``), where its positive part is summed
    over the maps. Of linear bottlenecks the positive activations alone are excited.

    Returns:
        (N, 1, H, W), >= 0.

    Raises:
        CaptureError: the network has no such layers, or an operator that has no winning
            probability, such as a gate.
    """
    graph = graph_of(module, x)
    top, fine = top_layer(graph), _fine_layer(graph)
    maps: dict[fx.Node, Tensor] = {}
    opposite = False

    def seen(node: fx.Node, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def look(*args: Any, **kwargs: Any) -> Tensor:
            maps[node] = function(*args, **kwargs)
            return maps[node]

        return look

    functions = _functions(graph, lambda: opposite)
    for node in {top, fine}:
        functions[node] = seen(node, functions.get(node, cast(Any, node.target)))
    network = executable(graph, {node: Operator(function) for node, function in functions.items()})
    probe = network(x.clone().requires_grad_()).gather(1, target[:, None]).sum()
    (excited,) = torch.autograd.grad(probe, maps[top], retain_graph=True)
    opposite = True  # of what is not linear above the top layer all keep their winners
    (inhibited,) = torch.autograd.grad(probe, maps[top], retain_graph=True)
    opposite = False
    difference = excited - inhibited
    if fine is not top:
        (difference,) = torch.autograd.grad(maps[top], maps[fine], difference)
    return to_image(difference.relu().sum(channel_dim(fine)), x)


def _fine_layer(graph: Graph) -> fx.Node:
    width = graph.image.meta["val"].shape[-1]
    fine = [n for n in graph.features if n.meta["val"].ndim == 4]
    fine = [n for n in fine if n.meta["val"].shape[-1] * FINEST >= width]
    return fine[-1] if fine else top_layer(graph)


def _functions(graph: Graph, opposite: Callable[[], bool]) -> dict[fx.Node, Callable[..., Tensor]]:
    """What stands in for each operator; ``opposite`` says whether the logits' weights are negated.

    Raises:
        CaptureError: for one there is nothing.
    """
    found: dict[fx.Node, Callable[..., Tensor]] = {}
    unknown = []
    for node in filter(adjoints.is_tensor, graph.nodes):
        if node not in graph.path:
            continue
        target = cast(Any, node.target)
        if is_activation(node):
            found[node] = _handed_through(target)
        elif target in (aten.convolution.default, aten.linear.default):
            negated = opposite if node is graph.logits else lambda: False
            found[node] = _affine(target, negated)
        elif target is aten.add.Tensor:
            found[node] = _sum
        elif target in (aten.mean.dim, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default):
            found[node] = _winning(target, target)
        elif target in (aten.mul.Tensor, aten.div.Tensor) and _by_a_positive_number(node):
            found[node] = _handed_through(target)
        elif target not in _HANDED_ON:
            unknown.append(f"{target} at {node.meta['layer']}")
    if unknown:
        raise CaptureError(
            "excitation backprop has no winning probability for "
            f"{', '.join(dict.fromkeys(unknown))}: choose another method for this network."
        )
    return found


def _by_a_positive_number(node: fx.Node) -> bool:
    factor = node.args[1]
    return isinstance(factor, int | float) and factor > 0


def _handed_through(target: Any) -> Callable[..., Tensor]:
    def function(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return with_backward(target(x.detach(), *args, **kwargs), lambda p: p, x)

    return function


def _winning(target: Any, excite: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operator with what excites its outputs, a function of its non-negative inputs."""

    def function(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        held = x.detach()

        def back(p: Tensor) -> Tensor:
            with torch.enable_grad():
                a = held.clamp(min=0).requires_grad_()
                z = excite(a, *args, **kwargs)
                (s,) = torch.autograd.grad(z, a, _share(p, z.detach()))
            return a.detach() * s

        return with_backward(target(held, *args, **kwargs), back, x)

    return function


def _affine(target: Any, negated: Callable[[], bool]) -> Callable[..., Tensor]:
    def excite(a: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        return cast(Tensor, target(a, (-weight if negated() else weight).clamp(min=0), None, *rest))

    return _winning(target, excite)


def _sum(x: Tensor, y: Tensor) -> Tensor:
    def back(p: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.detach().clamp(min=0), y.detach().clamp(min=0)
        s = _share(p, a + b)
        return a * s, b * s

    return with_backward(x.detach() + y.detach(), back, x, y)


def _share(p: Tensor, z: Tensor) -> Tensor:
    """p / z, 0 where nothing was excited."""
    return torch.where(z > 0, p / torch.where(z > 0, z, 1.0), 0.0)
