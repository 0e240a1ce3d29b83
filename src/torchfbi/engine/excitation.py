"""The excitation walk with what is known of signs, its weights made once, and its factor, which
does not depend on the target, computed once for all targets of one image."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.engine.magnitudes import excited, magnitude, side_by_side
from torchfbi.engine.rules import Site
from torchfbi.method.adjoints.excitation import Adjoint, Forward

aten = torch.ops.aten


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

    Where z is not negative, all weights hand on what survived as it is, and where a is neither,
    W + gamma W+ hands all back at once.

    Args:
        at: tells the output z, and what is known of signs.
        keep: the weights that are made for it are kept as long as the layer's own.
        joined: the adjoint takes weights for more inputs than the layer has.
    """
    half, z = at.gamma / 2, at.output
    one, of_one = (t[:1] if len(t) > 1 and t.stride(0) == 0 else t for t in (a, z))
    size = of_one.abs()
    weights, biases = magnitude(weight, half, keep), None if bias is None else bias.abs() * half
    scale = forward(one if at.positive_input else one.abs(), weights, biases)
    scale = scale.add_(size, alpha=1 + half).clamp_(min=torch.finfo(scale.dtype).tiny)
    factor = torch.div(size, scale, out=scale)
    survived = s.mul_(factor) if at.overwrite else s * factor
    if at.rectified_output and at.positive_input:
        return adjoint(survived, excited(weight, half, keep))
    sign = None if at.positive_input else torch.where(one < 0, -1.0, 1.0).to(s.dtype)
    if at.rectified_output and joined:
        plain, alike = adjoint(survived, side_by_side(weight, half, keep)).chunk(2, 1)
    else:
        plain = adjoint(survived, weight).mul_(1 + half)
        alike = adjoint(survived.mul_(of_one.sign()), weights)
    return plain + alike if sign is None else torch.addcmul(plain, alike, sign)
