"""Adjoints of activation functions: one principle, every function.

Section 2 rectifies the signal ("The adjoint of the ReLU activation function is the ReLU
itself"). With both signs the *gate is held*: f(x) = f(0) + x g(x), and the adjoint is s g(x)
with g held constant. For ReLU that is the 0/1 mask, for SiLU sigmoid(x), for GELU Phi(x).
``derivative`` is f'(x); at a kink it takes PyTorch's side. ``guided`` rectifies and derives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfbi.method.adjoints.registry import Site, adjoint

aten = torch.ops.aten


class Gate(NamedTuple):
    """What an activation function lets through; both are called with the operator's arguments.

    Args:
        held: g.
        derivative: f'; None where it equals g.
    """

    held: Callable[..., Tensor]
    derivative: Callable[..., Tensor] | None

    def slope(self, gates: str) -> Callable[..., Tensor]:
        """The one that a setting asks for."""
        return self.held if gates == "held" or self.derivative is None else self.derivative


GATES: dict[Any, Gate] = {}
"""By operator."""


def activation(
    *operators: Any, derivative: Callable[..., Tensor] | None = None
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register the decorated gate g, called as ``g(x, *args)`` with the operator's arguments.

    ``derivative`` is f', called in the same way; None where it equals g.
    """

    def register(gate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        found = Gate(gate, derivative)

        def rule(s: Tensor, at: Site, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if at.settings.rectified:
                s = torch.relu(s)
            if at.settings.gates == "rectify":
                return s
            back = s * found.slope(at.settings.gates)(x, *args, **kwargs)
            return back.sum_to_size(x.shape)  # a power may be of broadcast numbers

        rule.__doc__ = gate.__doc__
        adjoint(*operators, keeps=("inputs",), activation=True)(rule)
        GATES.update(dict.fromkeys(operators, found))
        return gate

    return register


@adjoint(aten.relu.default, keeps=("output",), activation=True)
def relu(s: Tensor, at: Site, x: Tensor) -> Tensor:
    """ReLU of the signal (section 2), or the mask of the active units."""
    if at.settings.rectified:
        s = torch.relu(s)
    if at.settings.gates == "rectify":
        return s
    return torch.where(at.output > 0, s, 0.0)


@activation(
    aten.clamp.default,
    derivative=lambda x, low=None, high=None: x.clamp(low, high) == x,
)
def clamp(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Full between the limits, (limit - f(0)) / x outside."""
    at_zero = x.new_zeros(()).clamp(low, high)
    return _secant(x.clamp(low, high) - at_zero, x, 1.0)


@activation(
    aten.hardtanh.default,
    derivative=lambda x, low=-1.0, high=1.0: (x > low) & (x < high),
)
def hardtanh(x: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Hardtanh and ReLU6: as clamp."""
    return clamp(x, low, high)


@activation(aten.leaky_relu.default)
def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """One above zero, the slope below."""
    return torch.where(x > 0, torch.ones_like(x), negative_slope)


@activation(aten.prelu.default)
def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """One above zero, the learned slope below."""
    slope = weight if weight.numel() == 1 else weight.reshape(1, -1, *([1] * (x.ndim - 2)))
    return torch.where(x > 0, torch.ones_like(x), slope)


@activation(
    aten.elu.default,
    derivative=lambda x, alpha=1.0, scale=1.0, input_scale=1.0: torch.where(
        x > 0, scale, scale * alpha * input_scale * torch.exp(input_scale * x)
    ),
)
def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """ELU and its relatives."""
    below = alpha * torch.expm1(input_scale * x.clamp(max=0))
    return scale * torch.where(x > 0, 1.0, _secant(below, x, alpha * input_scale))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@activation(
    aten.selu.default,
    derivative=lambda x: torch.where(x > 0, _SELU_SCALE, _SELU_SCALE * _SELU_ALPHA * torch.exp(x)),
)
def selu(x: Tensor) -> Tensor:
    """ELU with SELU's constants."""
    return elu(x, _SELU_ALPHA, _SELU_SCALE)


@activation(
    aten.celu.default,
    derivative=lambda x, alpha=1.0: torch.where(x > 0, 1.0, torch.exp(x / alpha)),
)
def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """ELU whose slope is continuous."""
    return elu(x, alpha, 1.0, 1.0 / alpha)


@activation(
    aten.silu.default,
    derivative=lambda x: torch.sigmoid(x) * (1 + x * torch.sigmoid(-x)),
)
def silu(x: Tensor) -> Tensor:
    """sigmoid(x)."""
    return torch.sigmoid(x)


def _gelu_derivative(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return gelu(x) + x * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    root = math.sqrt(2 / math.pi)
    inner = torch.tanh(root * (x + 0.044715 * x**3))
    return (1 + inner) / 2 + x * (1 - inner * inner) * root * (1 + 3 * 0.044715 * x * x) / 2


@activation(aten.gelu.default, derivative=_gelu_derivative)
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """Phi(x), the normal distribution function."""
    if approximate == "none":
        return (1 + torch.erf(x / math.sqrt(2))) / 2
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


@activation(
    aten.hardswish.default,
    derivative=lambda x: torch.where(x >= 3, 1.0, torch.where(x <= -3, 0.0, x / 3 + 0.5)),
)
def hardswish(x: Tensor) -> Tensor:
    """relu6(x + 3) / 6."""
    return F.relu6(x + 3) / 6


@activation(
    aten.hardsigmoid.default,
    derivative=lambda x: ((x > -3) & (x < 3)).to(x.dtype) / 6,
)
def hardsigmoid(x: Tensor) -> Tensor:
    """The secant from (0, 1/2)."""
    return _secant((x / 6).clamp(-0.5, 0.5), x, 1 / 6)


@activation(aten.sigmoid.default, derivative=lambda x: torch.sigmoid(x) * torch.sigmoid(-x))
def sigmoid(x: Tensor) -> Tensor:
    """The secant from (0, 1/2)."""
    return _secant(torch.tanh(x / 2) / 2, x, 0.25)


@activation(aten.tanh.default, derivative=lambda x: 1 - torch.tanh(x) ** 2)
def tanh(x: Tensor) -> Tensor:
    """tanh(x) / x."""
    return _secant(torch.tanh(x), x, 1.0)


@activation(
    aten.softplus.default,
    derivative=lambda x, beta=1.0, threshold=20.0: torch.where(
        beta * x > threshold, 1.0, torch.sigmoid(beta * x)
    ),
)
def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """The secant from (0, log(2) / beta)."""
    rise = F.softplus(x, beta, threshold) - math.log(2) / beta
    near = 0.5 + beta * x / 8  # the secant itself cancels close to zero
    return torch.where(x.abs() < 1e-3, near, _secant(rise, x, 0.5))


@activation(
    aten.mish.default,
    derivative=lambda x: mish(x) + x * (1 - mish(x) ** 2) * torch.sigmoid(x),
)
def mish(x: Tensor) -> Tensor:
    """tanh(softplus(x))."""
    return torch.tanh(F.softplus(x))


def _power_derivative(x: Tensor, n: float | Tensor) -> Tensor:
    slope = n * x ** (n - 1)
    root = (x == 0) & ((n > 0) & (n < 1) if isinstance(n, Tensor) else 0 < n < 1)
    return torch.where(root, 0.0, slope)  # infinite, which no gradient survives


@activation(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, derivative=_power_derivative)
def power(x: Tensor, n: float | Tensor) -> Tensor:
    """x^(n - 1), zero at zero, as in the squared ReLU and generalised means; where n < 0, as x^n
    has no value at zero, the secant from 1."""
    if not isinstance(n, Tensor) and n < 0:
        return _secant(x**n - 1, x - 1, float(n))
    at_zero = (n == 1).to(x) if isinstance(n, Tensor) else float(n == 1)
    gate = torch.where(x == 0, at_zero, x ** (n - 1))
    if isinstance(n, Tensor):
        return torch.where(n < 0, _secant(x**n - 1, x - 1, n), gate)
    return gate


@activation(aten.sqrt.default, derivative=lambda x: _power_derivative(x, 0.5))
def sqrt(x: Tensor) -> Tensor:
    """x^(-1/2), zero at zero, where the slope is infinite."""
    return power(x, 0.5)


def _secant(rise: Tensor, x: Tensor, at_zero: float | Tensor) -> Tensor:
    """rise / x, and its limit at zero."""
    zero = x == 0
    return torch.where(zero, at_zero, rise / torch.where(zero, 1.0, x))
