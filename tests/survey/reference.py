"""What ``plain`` must equal, by autograd: the gradient with all that the walk holds detached."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.method.adjoints import receivers
from torchfbi.method.graph import Graph

aten = torch.ops.aten


def held_gradient(graph: Graph, x: Tensor) -> Tensor:
    """The gradient of the top class's logit, shaped like ``x``.

    Attention's weights, gates and the deviations in norms are detached; that a norm takes off the
    mean is linear, and kept.

    Args:
        graph: of a network that answers with (N, classes).
        x: images, (N, C, ...), float64.
    """
    leaf = x.clone().requires_grad_()
    values: dict[fx.Node, Any] = {graph.image: leaf}
    for node in graph.nodes:
        signals = set(receivers(node)) if node in graph.path else set()

        def value(source: fx.Node, signals: set[fx.Node] = signals) -> Any:
            found = graph.tensors[source.target] if source.op == "get_attr" else values[source]  # type: ignore[index]
            held = isinstance(found, Tensor) and source not in signals
            return found.detach() if held else found

        args, kwargs = graph.arguments(node, value)
        run: Any = _HELD.get(node.target, node.target)
        values[node] = _halves(*args) if _is_shared(node) else run(*args, **kwargs)
    (gradient,) = torch.autograd.grad(values[graph.logits].amax(1).sum(), leaf)
    return gradient


def _is_shared(node: fx.Node) -> bool:
    return node.target is aten.mul.Tensor and len(receivers(node)) == 2


def _halves(x: Tensor, y: Tensor) -> Tensor:
    """A product of two equals, which share its signal."""
    return (x * y.detach() + x.detach() * y) / 2


def _layer_norm(
    x: Tensor, shape: list[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    deviation = (x.detach().var(dims, correction=0, keepdim=True) + eps).sqrt()
    return _affine((x - x.mean(dims, keepdim=True)) / deviation, weight, bias)


def _rms_norm(x: Tensor, shape: list[int], weight: Any = None, eps: float | None = None) -> Tensor:
    dims = tuple(range(-len(shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(x / (x.detach().square().mean(dims, keepdim=True) + eps).sqrt(), weight, None)


def _group_norm(
    x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    grouped = x.reshape(x.shape[0], groups, -1)
    deviation = (grouped.detach().var(2, correction=0, keepdim=True) + eps).sqrt()
    normed = ((grouped - grouped.mean(2, keepdim=True)) / deviation).reshape(x.shape)
    maps = [-1, *[1] * (x.ndim - 2)]
    return _affine(normed, *(t if t is None else t.reshape(maps) for t in (weight, bias)))


def _instance_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, own: bool, momentum: float, eps: float,
    *_: Any,
) -> Tensor:  # fmt: skip
    if own:
        return _group_norm(x, x.shape[1], weight, bias, eps)
    return aten.batch_norm.default(x, weight, bias, mean, var, False, momentum, eps, False)


def _affine(x: Tensor, weight: Any, bias: Any) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


_HELD: dict[Any, Any] = {
    aten.layer_norm.default: _layer_norm,
    aten.rms_norm.default: _rms_norm,
    aten.group_norm.default: _group_norm,
    aten.instance_norm.default: _instance_norm,
}
