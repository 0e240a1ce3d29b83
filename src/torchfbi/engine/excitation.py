"""The excitation walk with one product back where the signs are known."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.method.adjoints.excitation import Adjoint, Forward


def excitation(
    s: Tensor,
    z: Tensor,
    a: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: float,
    forward: Forward,
    adjoint: Adjoint,
    one_sided: bool,
) -> Tensor:
    """As ``torchfbi.method.adjoints.excitation.excitation`` for gamma > 0.

    Args:
        one_sided: no input is negative, nor any output at which s is not zero. Then the weights
            W + gamma W+ hand all back at once.
    """
    half, size, magnitude = gamma / 2, z.abs(), weight.abs()
    total = forward(a if one_sided else a.abs(), magnitude, None if bias is None else bias.abs())
    scale = total.mul_(half).add_(size, alpha=1 + half).clamp_(min=torch.finfo(total.dtype).tiny)
    survived = size.div_(scale).mul_(s)
    if one_sided:
        return adjoint(survived, weight * (1 + half) + magnitude * half)
    plain = adjoint(survived, weight)
    alike = adjoint(survived * z.sign(), magnitude)
    return plain.mul_(1 + half).add_(torch.where(a < 0, -alike, alike), alpha=half)
