"""Operators written out by several others, where that says how their adjoint is meant."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from torchfbi.capture.calls import call_before

aten = torch.ops.aten


def batch_norm(node: fx.Node) -> None:
    """By the batch's own statistics it is an instance norm of the batch as one image."""
    x, weight, bias, mean, var, training, *rest = node.args
    if not training and mean is not None and var is not None:
        return
    if True:
        swapped = call_before(node, aten.transpose.int, x, 0, 1)
        together = call_before(node, aten.unsqueeze.default, swapped, 0)
        own = (together, weight, bias, None, None, True, *rest)
        normed = call_before(node, aten.instance_norm.default, *own)
        apart = call_before(node, aten.squeeze.dim, normed, 0)
    node.target, node.args = aten.transpose.int, (apart, 0, 1)


def variance(node: fx.Node) -> None:
    """The mean square of what is left of the mean, by one degree of freedom less."""
    x, chosen, *_ = node.args
    over: Any = chosen
    settings: Any = {"correction": 1, "keepdim": False, **node.kwargs}
    shape = x.meta["val"].shape  # type: ignore[union-attr]
    dims = [dim % len(shape) for dim in (over or range(len(shape)))]
    if not all(isinstance(shape[dim], int) for dim in dims):
        return  # over the batch
    correction = 1 if settings["correction"] is None else settings["correction"]
    free = max(math.prod(shape[dim] for dim in dims) - correction, 0)
    mean = call_before(node, aten.mean.dim, x, dims, True)
    rest = call_before(node, aten.sub.Tensor, x, mean)
    squares = call_before(node, aten.pow.Tensor_Scalar, rest, 2)
    total = call_before(node, aten.sum.dim_IntList, squares, dims, settings["keepdim"])
    if node.target is aten.std.correction:
        variance = call_before(node, aten.div.Tensor, total, free)
        node.target, node.args = aten.sqrt.default, (variance,)
    else:
        node.target, node.args = aten.div.Tensor, (total, free)
    node.kwargs = {}


def lerp(node: fx.Node) -> None:
    """x + w (y - x)."""
    x, y, weight = node.args
    step = call_before(node, aten.mul.Tensor, call_before(node, aten.sub.Tensor, y, x), weight)
    node.target, node.args = aten.add.Tensor, (x, step)


def clamp(node: fx.Node) -> None:
    """Between limits that are tensors: the larger one, then the smaller one."""
    x, low, high = node.args
    if low is not None and high is not None:
        x = call_before(node, aten.maximum.default, x, low)
    node.target = aten.maximum.default if high is None else aten.minimum.default
    node.args = (x, low if high is None else high)
