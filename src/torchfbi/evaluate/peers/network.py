"""The captured network as a module: differentiable, cut open where a method looks into it.

All peers explain this module and not the user's: it is functional and frozen, so no hook, no
gradient and no in-place operator of a library ever touches the user's own, and all methods
explain the same numbers, the logits before a final softmax. Every operator stands by itself,
also where the user's code calls one module twice or a function instead of a module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import interpolate

from torchfbi.capture.capture import capture
from torchfbi.errors import CaptureError, InputError, TargetError
from torchfbi.explanation.predict import network_of
from torchfbi.method import heads
from torchfbi.method.graph import Graph

Score = Callable[[Tensor], Tensor]


class Operator(nn.Module):
    """A function as a module of its own, to stand in for one operator of a graph.

    Args:
        function: called with the operator's arguments.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The function's result."""
        return self.function(*args, **kwargs)


def graph_of(module: nn.Module, x: Tensor, *, any_batch: bool = False) -> Graph:
    """The captured graph of a classifier.

    Args:
        module: as for ``capture``.
        x: (N, C, H, W); its values do not count.
        any_batch: the method runs the network on batches of other sizes than N.

    Raises:
        CaptureError: see ``torchfbi.capture.capture``.
        TargetError: the network's output is not (N, classes).
        InputError: ``any_batch``, but the network's code fixes the batch size.
    """
    graph = capture(module, x)
    shape = tuple(graph.logits.meta["val"].shape)
    if len(shape) != 2:
        raise TargetError(
            f"the network's output has {len(shape)} dimensions: peers explain the classes of an "
            "output (N, classes)."
        )
    if any_batch and graph.batch is not None:
        raise InputError(
            f"this network's code fixes the batch size to {graph.batch}, but the method runs it "
            "on batches of altered images: let its forward take any batch size."
        )
    return graph


def logits_of(module: nn.Module, x: Tensor, *, any_batch: bool = False) -> fx.GraphModule:
    """The network as a module from images to logits, made once; otherwise as ``graph_of``."""
    graph = graph_of(module, x, any_batch=any_batch)
    return network_of(graph, x.device)


def probabilities_of(module: nn.Module, x: Tensor) -> Score:
    """The network as a function from altered images (M, C, H, W) to probabilities (M, classes).

    Raises:
        CaptureError, TargetError, InputError: as ``graph_of``.
    """
    network, head = logits_of(module, x, any_batch=True), graph_of(module, x).head

    def ask(images: Tensor) -> Tensor:
        with torch.no_grad():
            return heads.probabilities(network(images), head)

    return ask


def top_layer(graph: Graph) -> fx.Node:
    """The last activation function with maps (N, C, H, W): where class activation maps are made.

    Raises:
        CaptureError: there is none.
    """
    node = graph.top_layer
    if node is None or node.meta["val"].ndim != 4:
        raise CaptureError(
            "this network has no layer for a class activation map: no activation function with "
            "maps (N, C, H, W) lies below its logits."
        )
    return node


def to_image(coarse: Tensor, x: Tensor) -> Tensor:
    """Coarse maps (N, h, w) upsampled bilinearly to (N, 1, H, W), the size of images ``x``."""
    size: Any = x.shape[-2:]
    return interpolate(coarse[:, None], size=size, mode="bilinear", align_corners=False)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, back: Callable[[Tensor], Any], *inputs: Tensor) -> Tensor:
        ctx.back = back
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        back = ctx.back(signals[0])
        return None, None, *(back if isinstance(back, tuple) else (back,))


def with_backward(out: Tensor, back: Callable[[Tensor], Any], *inputs: Tensor) -> Tensor:
    """``out``, whose signal goes back to ``inputs`` as ``back`` says: a tensor for each."""
    found: Tensor = cast(Any, _Backward).apply(out, back, *inputs)
    return found
