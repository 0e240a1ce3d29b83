"""Operators that act entry by entry: activation functions, sums and products."""

from __future__ import annotations

import functools
import math
import operator as python
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfbi.models.onnx_import.registry import Call, operator

_ONE_INPUT: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Silu": F.silu,  # no ONNX operator: see recognise.py
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
_TWO_INPUTS = {"Add": python.add, "Sub": python.sub, "Mul": python.mul, "Div": python.truediv}


@operator(*_ONE_INPUT)
def one_input(call: Call, x: Tensor) -> Tensor:
    """The function of this name."""
    return _ONE_INPUT[call.operator](x)


@operator(*_TWO_INPUTS)
def two_inputs(call: Call, x: Any, y: Any) -> Any:
    """Broadcast as in NumPy; the quotient of whole numbers is whole."""
    both = [v for v in (x, y) if isinstance(v, Tensor)]
    if call.operator == "Div" and not any(v.is_floating_point() for v in both):
        return torch.div(x, y, rounding_mode="trunc")
    return _TWO_INPUTS[call.operator](x, y)


@operator("Sum")
def total(call: Call, *inputs: Any) -> Any:
    """Of any number of inputs."""
    return functools.reduce(python.add, inputs)


@operator("Mean")
def mean(call: Call, *inputs: Any) -> Any:
    """Of any number of inputs."""
    return functools.reduce(python.add, inputs) / len(inputs)


@operator("Max")
def maximum(call: Call, *inputs: Any) -> Tensor:
    """Of any number of inputs; with a number it is a rectifier."""
    return functools.reduce(lambda x, y: _bounded(x, y, "min"), inputs)


@operator("Min")
def minimum(call: Call, *inputs: Any) -> Tensor:
    """Of any number of inputs."""
    return functools.reduce(lambda x, y: _bounded(x, y, "max"), inputs)


def _bounded(x: Any, y: Any, side: str) -> Tensor:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return torch.maximum(x, y) if side == "min" else torch.minimum(x, y)
    tensor, limit = (x, y) if isinstance(x, Tensor) else (y, x)
    return torch.clamp(tensor, **{side: limit})


@operator("Clip", numbers=(1, 2))
def clip(call: Call, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    """The limits are attributes up to opset 10. Zero to six has an operator of its own."""
    low = call.get("min") if low is None else low.item()
    high = call.get("max") if high is None else high.item()
    # "No limit" is often spelled as the greatest float32.
    low = None if low is None or low < -3.4e38 else low
    high = None if high is None or high > 3.4e38 else high
    if low is None and high is None:
        return x
    if (low, high) == (0, None):
        return torch.relu(x)
    return F.relu6(x) if (low, high) == (0, 6) else torch.clamp(x, low, high)


@operator("Pow", numbers=(1,))
def power(call: Call, x: Tensor, exponent: Any) -> Tensor:
    """To a power that is known beforehand."""
    return x ** exponent.item()


@operator("LeakyRelu")
def leaky_relu(call: Call, x: Tensor) -> Tensor:
    """Slope alpha below zero."""
    return F.leaky_relu(x, call.get("alpha", 0.01))


@operator("PRelu")
def prelu(call: Call, x: Tensor, slope: Any) -> Tensor:
    """One learned slope for all, one a map, or any that broadcasts."""
    slope = torch.as_tensor(slope, dtype=x.dtype)
    sizes = [1] * (x.ndim - slope.ndim) + list(slope.shape)
    if slope.numel() == 1 or slope.numel() == sizes[1]:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x > 0, x, x * slope)


@operator("Elu")
def elu(call: Call, x: Tensor) -> Tensor:
    """alpha (e^x - 1) below zero."""
    return F.elu(x, call.get("alpha", 1.0))


@operator("Celu")
def celu(call: Call, x: Tensor) -> Tensor:
    """alpha (e^(x / alpha) - 1) below zero."""
    return F.celu(x, call.get("alpha", 1.0))


@operator("Selu")
def selu(call: Call, x: Tensor) -> Tensor:
    """With its usual two constants, which are attributes."""
    alpha = call.get("alpha", 1.6732632423543772)
    scale = call.get("gamma", 1.0507009873554805)
    usual = math.isclose(alpha, 1.67326324, rel_tol=1e-6) and math.isclose(
        scale, 1.05070098, rel_tol=1e-6
    )
    return F.selu(x) if usual else F.elu(x, alpha) * scale


@operator("ThresholdedRelu")
def thresholded_relu(call: Call, x: Tensor) -> Tensor:
    """The input above alpha, else zero."""
    return F.threshold(x, call.get("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    """alpha x + beta between 0 and 1."""
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


@operator("Gelu")
def gelu(call: Call, x: Tensor) -> Tensor:
    """x Phi(x), exactly or by tanh."""
    return F.gelu(x, approximate=call.get("approximate", "none"))


@operator("Softmax", "LogSoftmax")
def softmax(call: Call, x: Tensor) -> Tensor:
    """Along one axis; up to opset 12 over this and all axes behind it."""
    function: Any = F.softmax if call.operator == "Softmax" else F.log_softmax
    if call.opset >= 13:
        return function(x, call.get("axis", -1))
    axis = call.get("axis", 1) % x.ndim
    if all(size == 1 for size in x.shape[axis + 1 :]):
        return function(x, axis)
    return function(x.flatten(axis), -1).reshape(x.shape)


@operator("Identity")
def identity(call: Call, x: Tensor) -> Tensor:
    """Nothing is done."""
    return x


@operator("Dropout", numbers=(1, 2))
def dropout(call: Call, x: Tensor, ratio: Any = None, training: Any = None) -> Tensor:
    """At inference it does nothing. From opset 12 on a file may say that it stays on."""
    if training is not None and training.item():
        raise ValueError("dropout stays on (training_mode): export the network for inference")
    return x


_WHOLE = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64,
          9: torch.bool}  # fmt: skip
"""PyTorch's types for the numbers by which ONNX files name theirs."""


@operator("Cast")
def cast(call: Call, x: Tensor) -> Tensor:
    """All floating-point formats are one here."""
    if call.get("to") in _WHOLE:
        return x.to(_WHOLE[call.get("to")])
    return x if x.is_floating_point() else x.float()


@operator("Where", "Equal", "Greater", "Less", "And", "Or", "Not", "GreaterOrEqual", "LessOrEqual")
def choice(call: Call, *inputs: Any) -> Tensor:
    """Comparisons of tensors, mostly of weights."""
    functions: dict[str, Any] = {
        "Where": torch.where, "Equal": torch.eq, "Greater": torch.gt, "Less": torch.lt,
        "And": torch.logical_and, "Or": torch.logical_or, "Not": torch.logical_not,
        "GreaterOrEqual": torch.ge, "LessOrEqual": torch.le,
    }  # fmt: skip
    return functions[call.operator](*inputs)
