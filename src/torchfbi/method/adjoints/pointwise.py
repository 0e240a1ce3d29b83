"""Adjoints of sums, differences, products, quotients and choices.

A product with a gate (squeeze-excitation, x * sigmoid(x)) holds the gate constant: all signal
goes to what is gated. So no operator that only computes a gate ever needs an adjoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.method.adjoints.registry import Site, adjoint, is_held, tensor_arguments

aten = torch.ops.aten

_BOUNDED = {
    aten.sigmoid.default,
    aten.hardsigmoid.default,
    aten.tanh.default,
    aten.softmax.int,
    aten._softmax.default,
}
_COMPARISONS = {
    getattr(getattr(aten, name), overload)
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
    for overload in ("Scalar", "Tensor")
} | {
    aten.logical_and.default,
    aten.logical_or.default,
    aten.logical_not.default,
    aten.bitwise_and.Tensor,
    aten.bitwise_or.Tensor,
    aten.bitwise_not.default,
    aten.sign.default,
    aten.sgn.default,
    aten.heaviside.default,
}
"""What they return is a decision: bounded, and constant around almost every input."""
_BOUNDED |= _COMPARISONS
_TRANSPARENT = {
    aten.abs.default,
    aten.log.default,
    aten.log1p.default,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.add.Tensor,
    aten.reshape.default,
    aten.expand.default,
    aten.unsqueeze.default,
    aten.clamp.default,
    aten.hardtanh.default,
    aten.relu6.default,
    aten.relu.default,
    aten.erf.default,
    aten.exp.default,
    aten.neg.default,
    aten.reciprocal.default,
    aten.softplus.default,
    aten.pow.Tensor_Scalar,
    aten.sqrt.default,
    aten.rsqrt.default,
    aten.mean.dim,
    aten.to.dtype,
    aten._to_copy.default,
    aten.sub.Tensor,
    aten.rsub.Scalar,
} | _BOUNDED


@adjoint(aten.add.Tensor, receivers=tensor_arguments)
def add(
    s: Tensor, at: Site, x: Tensor, y: Tensor | float, *, alpha: float = 1
) -> tuple[Tensor | None, Tensor | None]:
    """Both summands get the signal."""
    return _fit(s, x), _fit(s if alpha == 1 else s * alpha, y)


@adjoint(aten.sub.Tensor, receivers=tensor_arguments)
def sub(
    s: Tensor, at: Site, x: Tensor, y: Tensor | float, *, alpha: float = 1
) -> tuple[Tensor | None, Tensor | None]:
    """The signal, and its negative."""
    return _fit(s, x), _fit(s * -alpha, y)


@adjoint(aten.rsub.Scalar)
def rsub(s: Tensor, at: Site, x: Tensor, other: float, alpha: float = 1) -> Tensor:
    """other - alpha x."""
    return s * -alpha


@adjoint(aten.maximum.default, aten.fmax.default, keeps=("inputs",), receivers=tensor_arguments)
def maximum(s: Tensor, at: Site, x: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The larger one gets the signal, equal ones half each."""
    first = torch.where(x == y, 0.5, (x > y).to(s.dtype))
    return _fit(s * first, x), _fit(s * (1 - first), y)


@adjoint(aten.minimum.default, aten.fmin.default, keeps=("inputs",), receivers=tensor_arguments)
def minimum(s: Tensor, at: Site, x: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The smaller one gets the signal, equal ones half each."""
    first = torch.where(x == y, 0.5, (x < y).to(s.dtype))
    return _fit(s * first, x), _fit(s * (1 - first), y)


@adjoint(aten.masked_fill.Scalar, aten.masked_fill.Tensor, keeps=("inputs",))
def masked_fill(s: Tensor, at: Site, x: Tensor, mask: Tensor, value: Any) -> Tensor | None:
    """Nothing where something else was put; the mask is held constant."""
    return _fit(s.masked_fill(mask, 0.0), x)


@adjoint(aten.neg.default)
def neg(s: Tensor, at: Site, x: Tensor) -> Tensor:
    """The negative signal."""
    return -s


def chosen_arguments(node: fx.Node) -> list[fx.Node]:
    """What is chosen from, not the condition that decides."""
    return tensor_arguments(node)[1:]


@adjoint(
    aten.where.self,
    aten.where.ScalarSelf,
    aten.where.ScalarOther,
    keeps=("inputs",),
    receivers=chosen_arguments,
)
def where(
    s: Tensor, at: Site, condition: Tensor, x: Tensor | float, y: Tensor | float
) -> list[Tensor | None]:
    """The signal goes to what was chosen; the condition is held constant."""
    parts = (torch.where(condition, s, 0.0), x), (torch.where(condition, 0.0, s), y)
    return [None, *(_fit(part, z) for part, z in parts if isinstance(z, Tensor))]


def gated_arguments(node: fx.Node) -> list[fx.Node]:
    """Which factors of a product are signal rather than gate.

    A factor that is broadcast over the other is a gate, and so is one computed pointwise or by
    means from the other (x * sigmoid(x), x * rsqrt(mean(x^2))) or from a bounded function. Where
    neither factor is a gate, both are signal and share it equally.
    """
    factors = [argument for argument in tensor_arguments(node) if not is_held(argument)]
    if len(factors) < 2:
        return factors
    x, y = factors
    entries = [argument.meta["val"].shape[1:].numel() for argument in (x, y)]
    if entries[0] != entries[1]:
        return [x if entries[0] > entries[1] else y]
    for signal, gate in ((x, y), (y, x)):
        if signal is not gate and signal in _pointwise_sources(gate):
            return [signal]
    gates = [bool(_BOUNDED & {source.target for source in _pointwise_sources(f)}) for f in (x, y)]
    if gates[0] != gates[1]:
        return [y if gates[0] else x]
    return factors


@adjoint(aten.mul.Tensor, keeps=("inputs",), receivers=gated_arguments)
def mul(
    s: Tensor, at: Site, x: Tensor, y: Tensor | float
) -> Tensor | tuple[Tensor | None, Tensor | None]:
    """Times the other factor, which is held constant; two equal factors get half each."""
    if not isinstance(y, Tensor):
        return s * y
    signals = gated_arguments(at.node)
    share = s / 2 if len(signals) == 2 else s
    first, second = (argument in signals for argument in tensor_arguments(at.node))
    return (_fit(share * y, x) if first else None, _fit(share * x, y) if second else None)


@adjoint(aten.div.Tensor, keeps=("inputs",))
def div(s: Tensor, at: Site, x: Tensor, y: Tensor | float) -> Tensor:
    """Divided by the denominator, which is held constant."""
    fitted = _fit(s / y, x)
    assert fitted is not None
    return fitted


def _pointwise_sources(node: fx.Node) -> set[fx.Node]:
    """``node`` and all it is computed from entry by entry or as a mean."""
    found, queue = set[fx.Node](), [node]
    while queue:
        current = queue.pop()
        if current in found:
            continue
        found.add(current)
        if current.target in _TRANSPARENT:
            queue += tensor_arguments(current)
    return found


def _fit(s: Tensor, x: Any) -> Tensor | None:
    """Sum over the entries along which ``x`` was broadcast, in its dtype."""
    if not isinstance(x, Tensor):
        return None
    return (s if s.shape == x.shape else s.sum_to_size(x.shape)).to(x.dtype)
