"""Weights packed as oneDNN computes with them, once instead of at every call.

Where a layer has more weights than positions to use them at, ordering them takes as long as the
convolution itself. PyTorch's own compiler packs weights by the same operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.method.graph import Graph
from torchfbi.system.layout import onednn_takes

aten = torch.ops.aten

_MOST_POSITIONS = 2048
"""With more of them, in all images of the batch, packing is below a twentieth of the time."""


class Packing:
    """The packed weights of a graph's convolutions. Copies start without any."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._packed: dict[fx.Node, tuple[Tensor, int, Tensor]] = {}
        self._positions = {
            node: node.meta["val"].shape[2:].numel()
            for node in graph.nodes
            if node.target is aten.convolution.default and node.meta["val"].ndim == 4
        }

    def __reduce__(self) -> Any:
        return Packing, (self._graph,)

    def convolution(self, node: fx.Node, args: Any) -> Tensor | None:
        """The value of a convolution with packed weights, or None where that does not pay.

        Args:
            node: an operator of the graph.
            args: its arguments.
        """
        if node not in self._positions:
            return None
        x, weight, bias, stride, padding, dilation, transposed, _, groups = args
        few = x.shape[0] * self._positions[node] <= _MOST_POSITIONS
        if transposed or not few or not onednn_takes(x) or weight.is_inference():
            return None
        version = weight._version
        source, made_for, packed = self._packed.get(node, (None, None, weight))
        if source is not weight or made_for != version:
            pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # whose stub lacks an argument
            packed = pack(weight.to_mkldnn(), padding, stride, dilation, groups, x.shape)
            self._packed[node] = weight, version, packed
        value: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, packed, bias, padding, stride, dilation, groups, "none", [], ""
        )
        return value
