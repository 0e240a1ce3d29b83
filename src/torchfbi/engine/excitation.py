"""The excitation walk with what is known of signs, and its factor, which does not depend on the
target, computed once for all targets of one image."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from torchfbi.engine.magnitudes import Use
from torchfbi.engine.rules import Site


class Layer(Protocol):
    """An affine layer with weights made for a use.

    Args:
        weight, bias: its own.
        joined: whether it can have twice as many inputs or outputs.
    """

    weight: Tensor
    bias: Tensor | None
    joined: bool

    def forth(self, a: Tensor, bias: Tensor | None) -> Tensor:
        """What the layer computes with the weights of the use ``magnitude``."""

    def back(self, s: Tensor, use: Use) -> Tensor:
        """Its adjoint with the weights of a use."""


def excitation(s: Tensor, at: Site, a: Tensor, layer: Layer) -> Tensor:
    """As ``torchfbi.method.adjoints.excitation.excitation`` for gamma > 0.

    Where neither z nor a is negative, W + gamma W+ hands all back at once. Where one of them is
    never, the two products are one with twice as many weights.

    Args:
        s: the signal at the output; it is written over where the site allows it.
        at: tells the output z, the gated one, and what is known of signs.
        a: the input.
        layer: see ``Layer``.
    """
    factor = _factor(at, a, layer)
    survived = s.mul_(factor) if at.overwrite else s * factor
    if at.rectified_output and at.positive_input:
        return layer.back(survived, "excited")
    fewer_outputs = layer.weight.shape[0] < layer.weight.shape[1]  # else joining them takes longer
    if layer.joined and at.positive_input and fewer_outputs:
        up = survived.masked_fill(_once(at.output) < 0, 0.0)
        return layer.back(torch.cat([up, survived - up], 1), "above each other")
    if layer.joined and at.rectified_output:
        plain, alike = layer.back(survived, "side by side").chunk(2, 1)
        return torch.addcmul(plain, alike, _sign(a))
    plain = layer.back(survived, "plain").mul_(1 + at.gamma / 2)
    up = survived if at.rectified_output else survived.mul_(_once(at.output).sign())
    alike = layer.back(up, "magnitude")
    return plain.add_(alike) if at.positive_input else plain.addcmul_(alike, _sign(a))


def _sign(a: Tensor) -> Tensor:
    """-1 where the input is negative, else 1."""
    return torch.where(_once(a) < 0, -1.0, 1.0).to(a.dtype)


def _factor(at: Site, a: Tensor, layer: Layer) -> Tensor:
    """z / (z + gamma z*), times the gate where the activation function behind has left that to
    us: the gate times z is that function's value."""
    half, z = at.gamma / 2, _once(at.output)
    tiny = torch.finfo(layer.weight.dtype).tiny  # so that nothing is divided by zero
    bias = None if layer.bias is None else (layer.bias.abs() * half).add_(tiny)
    scale = layer.forth(_once(a) if at.positive_input else _once(a).abs(), bias)
    if bias is None:
        scale.add_(tiny)
    kept = z.abs() if at.gated is None else _once(at.gated)
    size = kept if at.gated is None or at.reads_gated_alone else torch.relu(z)
    return torch.div(kept, scale.add_(size, alpha=1 + half), out=scale)


def _once(value: Tensor) -> Tensor:
    """The one image's value where several walks start from it."""
    return value[:1] if len(value) > 1 and value.stride(0) == 0 else value
