"""DeepLIFT's rescale rule on the captured network (Shrikumar et al. 2017, section 3.5.2).

Captum's hooks know ``nn.ReLU`` modules that are called once, but give the plain gradient at
ReLU6, SiLU and functional ReLUs, and where max pooling stands beside an activation its own rule
is lost, so that the contributions no longer add up. Here every activation is treated alike, and
contributions add up to the difference of the class's logit to that of an image that is 0 in the
network's own units, the mean colour.

Each operator is replaced by one that has the same output and whose gradient is the multiplier
(Ancona et al. 2018, section 2): out + m (x - x held constant).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from torchfbi.errors import CaptureError
from torchfbi.evaluate.peers.network import Operator, graph_of
from torchfbi.explanation.predict import executable
from torchfbi.method import adjoints
from torchfbi.method.graph import Graph, is_activation

aten = torch.ops.aten

Function = Callable[..., Tensor]

_POOLS: dict[Any, Any] = {
    aten.max_pool1d.default: torch.nn.functional.max_pool1d,
    aten.max_pool2d.default: torch.nn.functional.max_pool2d,
    aten.max_pool3d.default: torch.nn.functional.max_pool3d,
}


def deeplift(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """Contributions (N, C, H, W) to the class's logit, relative to that of the mean colour.

    Raises:
        CaptureError: an operator is neither linear nor one that the rule covers.
    """
    graph = graph_of(module, x, any_batch=True)
    network = executable(graph, _multipliers(graph))
    pair = torch.cat([x, torch.zeros_like(x)]).requires_grad_()
    logits = network(pair)[: len(x)].gather(1, target[:, None])
    (multipliers,) = torch.autograd.grad(logits.sum(), pair)
    return x * multipliers[: len(x)]


def _rescale(activation: Function) -> Function:
    """An activation f: m = (f(x) - f(x0)) / (x - x0), and f'(x) where the two inputs agree."""

    def surrogate(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        held = x.detach()
        leaf = held.clone().requires_grad_()
        out = activation(leaf, *args, **kwargs)
        (slope,) = torch.autograd.grad(out.sum(), leaf)
        out, run = out.detach(), _difference(held)
        same = run.abs() <= torch.finfo(x.dtype).eps * _mean(held.abs())
        m = torch.where(same, slope, _difference(out) / torch.where(same, 1.0, run))
        return out + m * (x - held)

    return surrogate


def _rescale_maximum(pool: Any) -> Function:
    """Max pooling: a window's change is laid to the pixel that is largest in that image which has
    the larger maximum; it has changed by at least as much."""

    def surrogate(x: Tensor, *window: Any) -> Tensor:
        out, places = pool(x.detach(), *window, return_indices=True)
        rise = _difference(out)
        image, baseline = (half.repeat(2, *[1] * (x.ndim - 1)) for half in places.chunk(2))
        place = torch.where(rise >= 0, image, baseline).flatten(2)
        chosen = x.flatten(2).gather(2, place).reshape(out.shape)
        run = _difference(chosen.detach())
        m = torch.where(run == 0, 1.0, rise / torch.where(run == 0, 1.0, run))
        return out + m * (chosen - chosen.detach())

    return surrogate


def _product(x: Tensor, y: Tensor) -> Tensor:
    """A product: each factor's change times the other's mean, which adds up exactly."""
    out = x.detach() * y.detach()
    return out + _mean(y) * (x - x.detach()) + _mean(x) * (y - y.detach())


def _difference(pair: Tensor) -> Tensor:
    """Image minus baseline, for both of them: (2N, ...), like ``pair``."""
    image, baseline = pair.chunk(2)
    return torch.cat([image - baseline] * 2)


def _mean(pair: Tensor) -> Tensor:
    """The mean of image and baseline, for both of them: (2N, ...), like ``pair``."""
    image, baseline = pair.detach().chunk(2)
    return torch.cat([(image + baseline) / 2] * 2)


def _multipliers(graph: Graph) -> dict[fx.Node, Operator]:
    """What stands in for each operator that is not linear in the image."""
    replaced: dict[fx.Node, Operator] = {}
    unknown = []
    for node in filter(adjoints.is_tensor, graph.nodes):
        varying = [n for n in adjoints.tensor_arguments(node) if n.op != "get_attr"]
        if is_activation(node):
            replaced[node] = Operator(_rescale(cast(Any, node.target)))
        elif node.target in _POOLS:
            replaced[node] = Operator(_rescale_maximum(_POOLS[node.target]))
        elif node.target is aten.mul.Tensor and len(varying) == 2:
            replaced[node] = Operator(_product)
        elif varying and not _is_linear(node, varying):
            unknown.append(f"{node.target} at {node.meta['layer']}")
    if unknown:
        raise CaptureError(
            "DeepLIFT's rescale rule knows activations, max pooling and products, but not "
            f"{', '.join(unknown)}: choose another method for this network."
        )
    return replaced


def _is_linear(node: fx.Node, varying: list[fx.Node]) -> bool:
    """Whether the operator is affine in what depends on the image: its adjoint reads no values,
    it is a layer of constant weights, or it multiplies by or divides by a constant."""
    if node.target in (aten.mul.Tensor, aten.div.Tensor):
        return len(varying) == 1 and (node.target is aten.mul.Tensor or node.args[0] in varying)
    if node.target in (aten.convolution.default, aten.linear.default):
        return varying == [node.args[0]]
    found = adjoints.find(node.target)
    return found is not None and not found.keeps
