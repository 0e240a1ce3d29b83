"""The excitation walk: the forward pass guides the signal at every connection.

The plain adjoint of z = W a + b asks what would change a unit. This one asks how much of what
*speaks for* the unit survived what speaks against it. With what excites and what inhibits it,

    z+_k = sum_j max(w_kj a_j, 0) + max(b_k, 0),    z-_k = sum_j min(w_kj a_j, 0) + min(b_k, 0),

and z*_k the one of the two that has the sign of z_k,

    s'_k = s_k z_k / (z_k + gamma z*_k)
    s_j  = sum_k s'_k w_kj (1 + gamma [w_kj a_j has the sign of z_k]).

gamma = 0 is the plain adjoint; gamma -> infinity hands s z back in proportion to what excites
alone. It is the gamma rule of layer-wise relevance propagation (Montavon et al. 2019) for the
signal instead of the relevance and for units of either sign; its limit for positive ones is
excitation backprop (Zhang et al. 2016).

z*_k has the sign of z_k and at least its magnitude, so the factor z / (z + gamma z*) lies in
[0, 1 / (1 + gamma)]: nothing can explode. What is handed back sums to what came, but for the bias:

    sum_j s_j a_j = sum_k s_k z_k - sum_k s'_k (b_k + gamma b*_k),

b*_k being b_k where it has the sign of z_k, else 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Forward = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Adjoint = Callable[[Tensor, Tensor], Tensor]


def excitation(
    s: Tensor,
    z: Tensor,
    a: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gamma: float,
    forward: Forward,
    adjoint: Adjoint,
) -> Tensor:
    """The excitation walk through one affine layer; the plain adjoint where gamma is 0.

    All sums by sign follow from the layer's own and those of the magnitudes: with
    A = |W| |a| + |b|, twice z+ is z + A and twice z- is z - A, so |z*| is half of |z| + A. A silent
    input, a = 0, counts as positive.

    Args:
        s: the signal at the layer's output.
        z: that output.
        a: the layer's input.
        weight: W.
        bias: b; None for none.
        gamma: >= 0.
        forward: what the layer computes of an input, weights and a bias.
        adjoint: the plain adjoint of that, of a signal and weights.

    Returns:
        The signal at the input, shaped like ``a``.
    """
    if not gamma:
        return adjoint(s, weight)
    magnitude = weight.abs()
    total = forward(a.abs(), magnitude, None if bias is None else bias.abs())
    scale = z.abs() + gamma * (z.abs() + total) / 2
    survived = s * z.abs() / scale.clamp(min=torch.finfo(scale.dtype).tiny)
    plain = adjoint(survived, weight)
    # [w a has the sign of z] is (1 + sign(w a z)) / 2, and w sign(w) is |w|.
    alike = adjoint(survived * z.sign(), magnitude)
    return plain + gamma / 2 * (plain + torch.where(a < 0, -alike, alike))
