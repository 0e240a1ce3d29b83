"""RectGrad on the captured network (Kim et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchfbi.evaluate.peers.network import Operator, graph_of, with_backward
from torchfbi.explanation.predict import executable
from torchfbi.method.graph import is_activation

PERCENT = 2
"""Of a layer's units may pass the gradient on: those above the 98th percentile (section 4)."""


def rectgrad(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """The gradient through those units alone whose activation times gradient is above the layer's
    percentile and positive, (N, C, H, W) (equation 3)."""
    graph = graph_of(module, x)
    replaced = {
        node: Operator(_rectified(cast(Any, node.target)))
        for node in graph.nodes
        if is_activation(node)
    }
    leaf = x.clone().requires_grad_()
    logits = executable(graph, replaced)(leaf).gather(1, target[:, None])
    (values,) = torch.autograd.grad(logits.sum(), leaf)
    return values


def _rectified(activation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def function(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        held = x.detach()

        def back(signal: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = held.clone().requires_grad_()
                a = activation(leaf, *args, **kwargs)
                p = (a.detach() * signal).flatten(1)
                count = -(-PERCENT * p.shape[1] // 100)  # rounded up
                least = p.topk(count, dim=1).values[:, -1:]
                passes = ((p >= least) & (p > 0)).view(signal.shape)
                (slope,) = torch.autograd.grad(a, leaf, torch.where(passes, signal, 0.0))
            return slope

        return with_backward(activation(held, *args, **kwargs), back, x)

    return function
