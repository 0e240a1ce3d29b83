"""The excitation walk with what is known of signs, its weights made once, and its factor, which
does not depend on the target, computed once for all targets of one image."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.engine.magnitudes import above_each_other, excited, magnitude, side_by_side
from torchfbi.engine.rules import Site
from torchfbi.method.adjoints.excitation import Adjoint, Forward


def excitation(
    s: Tensor,
    at: Site,
    a: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    forward: Forward,
    adjoint: Adjoint,
    *,
    keep: bool = True,
    joined: bool = False,
) -> Tensor:
    """As ``torchfbi.method.adjoints.excitation.excitation`` for gamma > 0.

    Where neither z nor a is negative, W + gamma W+ hands all back at once. Where one of them is
    never, the two products are one with twice as many weights.

    Args:
        at: tells the output z, the gated one, and what is known of signs.
        keep: the weights that are made for it are kept as long as the layer's own.
        joined: the adjoint takes weights for more inputs, and for more outputs, than the layer has.
    """
    half, z, gated = at.gamma / 2, at.output, at.gated
    one, factor = _once(a), _factor(at, weight, bias, half, forward, keep, a)
    survived = s.mul_(factor) if at.overwrite else s * factor
    positive_output = gated is not None or at.rectified_output
    if positive_output and at.positive_input:
        return adjoint(survived, excited(weight, half, keep))
    if joined and at.positive_input:
        up = survived.masked_fill(_once(z) < 0, 0.0)
        return adjoint(torch.cat([up, survived - up], 1), above_each_other(weight, half, keep))
    sign = torch.where(one < 0, -1.0, 1.0).to(s.dtype)
    if joined and positive_output:
        plain, alike = adjoint(survived, side_by_side(weight, half, keep)).chunk(2, 1)
        return torch.addcmul(plain, alike, sign)
    plain = adjoint(survived, weight).mul_(1 + half)
    up = survived if positive_output else survived * _once(z).sign()
    return plain.addcmul_(adjoint(up, magnitude(weight, half, keep)), sign)


def _factor(
    at: Site,
    weight: Tensor,
    bias: Tensor | None,
    half: float,
    forward: Forward,
    keep: bool,
    a: Tensor,
) -> Tensor:
    """z / (z + gamma z*), times the gate where the activation function behind has left that to
    us."""
    one, z = _once(a), _once(at.output)
    weights = magnitude(weight, half, keep)
    tiny = torch.finfo(weight.dtype).tiny  # so that nothing is divided by zero
    biases = None if bias is None else (bias.abs() * half).add_(tiny)
    scale = forward(one if at.positive_input else one.abs(), weights, biases)
    if bias is None:
        scale.add_(tiny)
    if at.gated is None:
        kept = size = z.abs()
    else:
        kept = _once(at.gated)  # the gate times z
        size = kept if at.reads_gated_alone else torch.relu(z)
    return torch.div(kept, scale.add_(size, alpha=1 + half), out=scale)


def _once(value: Tensor) -> Tensor:
    """The one image's value where several walks start from it."""
    return value[:1] if len(value) > 1 and value.stride(0) == 0 else value
