"""Adjoints of the elementary functions: logarithms, exponentials, roots, trigonometry.

Each is told by its derivative. The held gate of ``activations`` follows: the secant
g(x) = (f(x) - f(o)) / (x - o) from the origin o, which is 0, or 1 where the function has no
value at 0. Close to o, where a difference of two values of f would cancel, the secant is the
derivative in its middle, f'((x + o) / 2), which is off by (x - o)^2 f''' / 24.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfbi.method.adjoints.activations import activation

aten = torch.ops.aten


def _function(operator: Any, derivative: Callable[..., Tensor], origin: float = 0.0) -> None:
    """Register an elementwise function by its derivative, called with the operator's arguments."""

    def gate(x: Tensor, *args: Any) -> Tensor:
        step = x - origin
        close = step.abs() < torch.finfo(x.dtype).eps ** (1 / 3)
        rise = operator(x, *args) - operator(torch.full_like(x, origin), *args)
        middle = derivative(origin + step / 2, *args)
        return torch.where(close, middle, rise / torch.where(close, 1.0, step))

    gate.__doc__ = f"The secant from {origin:g}."
    activation(operator, derivative=derivative)(gate)


_function(aten.abs.default, torch.sgn)
_function(aten.exp.default, torch.exp)
_function(aten.exp2.default, lambda x: torch.exp2(x) * math.log(2))
_function(aten.expm1.default, torch.exp)
_function(aten.log.default, lambda x: 1 / x, origin=1.0)
_function(aten.log2.default, lambda x: 1 / (x * math.log(2)), origin=1.0)
_function(aten.log10.default, lambda x: 1 / (x * math.log(10)), origin=1.0)
_function(aten.log1p.default, lambda x: 1 / (1 + x))
_function(aten.reciprocal.default, lambda x: -1 / x**2, origin=1.0)
_function(aten.rsqrt.default, lambda x: -0.5 * x**-1.5, origin=1.0)
_function(aten.sin.default, torch.cos)
_function(aten.cos.default, lambda x: -torch.sin(x))
_function(aten.tan.default, lambda x: 1 + torch.tan(x) ** 2)
_function(aten.asin.default, lambda x: torch.rsqrt(1 - x * x))
_function(aten.acos.default, lambda x: -torch.rsqrt(1 - x * x))
_function(aten.atan.default, lambda x: 1 / (1 + x * x))
_function(aten.sinh.default, torch.cosh)
_function(aten.cosh.default, torch.sinh)
_function(aten.asinh.default, lambda x: torch.rsqrt(1 + x * x))
_function(aten.atanh.default, lambda x: 1 / (1 - x * x))
_function(aten.erf.default, lambda x: 2 / math.sqrt(math.pi) * torch.exp(-x * x))
_function(aten.erfc.default, lambda x: -2 / math.sqrt(math.pi) * torch.exp(-x * x))
_function(aten.log_sigmoid.default, lambda x: torch.sigmoid(-x))
_function(
    aten.logit.default,
    lambda x, eps=None: torch.where(
        (x >= (eps or 0)) & (x <= 1 - (eps or 0)), 1 / (x * (1 - x)), 0.0
    ),
    origin=0.5,
)
_function(aten.softshrink.default, lambda x, low=0.5: (x.abs() > low).to(x.dtype))
_function(aten.hardshrink.default, lambda x, low=0.5: (x.abs() > low).to(x.dtype))
_function(aten.threshold.default, lambda x, low, value: (x > low).to(x.dtype))
