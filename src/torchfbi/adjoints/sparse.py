"""The adjoint of a convolution over the kept feature maps alone.

Selection leaves most maps zero, and a map that is zero adds nothing: over half of the maps a
transposed convolution costs half. Every sample has kept others, so they go one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten


def kept_maps(s: Tensor, weight: Tensor, groups: int) -> list[Tensor] | None:
    """The maps of each sample that are not zero, or None where to leave out the others does not
    pay.

    Args:
        s: the signal, (N, O, ...).
        weight: (O, I, ...).
        groups: of the convolution.

    Returns:
        For each sample the numbers of its maps, (kept,) int64.
    """
    if torch.compiler.is_compiling() or s.device.type != "cpu":
        return None  # how many are kept depends on the data, and a GPU would have to wait for it
    if groups > 1 or weight[0].numel() < _WORTH_GATHERING or s[0, 0].numel() < _POSITIONS:
        return None
    inner = tuple(range(2, s.ndim))
    zero = (s.amax(inner) == 0) & (s.amin(inner) == 0)  # a NaN is not zero
    zero[:, 0] &= ~zero.all(1)  # a convolution wants at least one
    kept = [row.logical_not().nonzero().flatten() for row in zero]
    return kept if sum(map(len, kept)) <= _MOST * zero.numel() else None


_WORTH_GATHERING = 256
"""Multiplications for each entry of the signal below which the gathering costs more."""
_POSITIONS = 49
"""Positions below which the weights are more to gather than the signal."""
_MOST = 0.75
"""The share of the maps above which all are taken."""


def transposed_convolution(
    s: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    leftover: list[int],
    kept: list[Tensor],
) -> Tensor:
    """``aten.convolution`` with ``transposed`` over the kept maps of each sample."""
    backs = []
    for sample, maps in zip(torch.split(s, 1), kept, strict=True):
        few = sample.movedim(1, -1)[..., maps].movedim(-1, 1)  # index_select takes longer
        backs.append(
            aten.convolution.default(
                few, weight[maps], None, stride, padding, dilation, True, leftover, 1
            )
        )
    return backs[0] if len(backs) == 1 else torch.cat(backs)
