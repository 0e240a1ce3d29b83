"""Operators written out by several others, where that says how their adjoint is meant."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from torchfbi.capture.calls import call_before

aten = torch.ops.aten


def batch_norm(node: fx.Node) -> None:
    """By the batch's own statistics: both are held, as the running ones are constants. The walk
    goes image by image, so what one image does to the mean of the others is not in it."""
    x, weight, bias, mean, var, training, _, eps, _ = node.args
    if not training and mean is not None and var is not None:
        return
    ndim = x.meta["val"].ndim  # type: ignore[union-attr]
    over, maps = [0, *range(2, ndim)], [1, -1, *[1] * (ndim - 2)]

    def put(operator: Any, *args: Any) -> fx.Node:
        return call_before(node, operator, *args)

    variance = put(aten.reshape.default, put(aten.var.dim, x, over, False), maps)
    scale = put(aten.rsqrt.default, put(aten.add.Tensor, variance, eps))
    centre = put(aten.mean.dim, x, over, True)
    y = put(aten.sub.Tensor, x, put(aten.detach.default, centre))
    y = put(aten.mul.Tensor, y, put(aten.detach.default, scale))
    if weight is not None:
        y = put(aten.mul.Tensor, y, put(aten.reshape.default, weight, maps))
    shift = 0.0 if bias is None else put(aten.reshape.default, bias, maps)
    node.target, node.args = aten.add.Tensor, (y, shift)


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


def variance_and_mean(node: fx.Node) -> None:
    """One operator for each of the two."""
    x, over, *rest = node.args
    given: Any = {"correction": 1, "keepdim": False, **node.kwargs}
    if rest:
        given = {"correction": int(bool(rest[0])), "keepdim": rest[1]}
    deviation = "std_mean" in str(node.target)
    for user in list(node.users):
        if user.args[1] == 1:
            user.target, user.args = aten.mean.dim, (x, over, given["keepdim"])
        else:
            user.target = aten.std.correction if deviation else aten.var.correction
            user.args, user.kwargs = (x, over), given
            variance(user)


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
