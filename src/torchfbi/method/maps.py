"""Which dimension of a value counts the feature maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from torchfbi.method.adjoints import is_held, tensor_arguments
from torchfbi.method.adjoints.shape import RESHAPES

aten = torch.ops.aten


def channel_dim(node: fx.Node) -> int:
    """Which dimension of the node's value counts the feature maps.

    Convolutions put them at 1, dense layers last (ConvNeXt's activations are N, H, W, C), what
    moves dimensions moves them too, and everything else leaves them where they are.
    """
    ndim = node.meta["val"].ndim
    if node.op != "call_function" or ndim < 3 or node.target in _MAPS_FIRST:
        return 1
    if node.target in _MAPS_LAST:
        return ndim - 1
    source = next((a for a in tensor_arguments(node) if not is_held(a)), None)
    if source is None or source.meta["val"].ndim < 3:
        return 1
    dim = channel_dim(source)
    if node.target is aten.squeeze.dim and _argument(node, 1) == 0:
        return dim - 1  # of the batch as one image
    if node.target in RESHAPES:
        return _reshaped(_sizes(source), _sizes(node), dim)
    if node.target == aten.select.int:
        taken = _argument(node, 1) % source.meta["val"].ndim
        return dim if taken > dim else max(1, dim - 1)
    if source.meta["val"].ndim != ndim:
        return 1
    if node.target == aten.permute.default:
        return [d % ndim for d in _argument(node, 1)].index(dim)
    if node.target == aten.transpose.int:
        swapped = [_argument(node, 1) % ndim, _argument(node, 2) % ndim]
        return swapped[1 - swapped.index(dim)] if dim in swapped else dim
    return dim


def _sizes(node: fx.Node) -> list[int]:
    """The sizes of a value; an open batch size is that of the example."""
    return [n if isinstance(n, int) else n.node.hint for n in node.meta["val"].shape]


def _reshaped(before: list[int], after: list[int], dim: int) -> int:
    """Where a dimension's entries count on: the last of those dimensions that together hold it."""
    i = j = 0
    while i < len(before) and j < len(after):
        ours, theirs = before[i], after[j]
        i, j = i + 1, j + 1
        while ours != theirs and (i < len(before) or j < len(after)):
            if j == len(after) or (ours < theirs and i < len(before)):
                ours, i = ours * before[i], i + 1
            else:
                theirs, j = theirs * after[j], j + 1
        if dim < i:
            return max(1, j - 1)
    return 1


_MAPS_FIRST = {
    aten.convolution.default,
    aten.batch_norm.default,
    aten.group_norm.default,
    aten.instance_norm.default,
}
_MAPS_LAST = {aten.linear.default, aten.layer_norm.default, aten.rms_norm.default}


def _argument(node: fx.Node, index: int) -> Any:
    return node.args[index]
