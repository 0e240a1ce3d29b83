"""Selection in memory that is there already; an overflow on the way is an error."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.engine.positive import rectified, where_positive
from torchfbi.engine.scratch import Scratch
from torchfbi.method.selection import keep_maps, passes_by_sign, product, top_maps, totals
from torchfbi.method.settings import Settings
from torchfbi.system.finite import finite


def select(
    signal: Tensor,
    activation: Tensor,
    settings: Settings,
    overwrite: bool,
    scratch: Scratch,
    *,
    channel: int = 1,
    top_k: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """As ``torchfbi.method.selection.select``.

    Args:
        activation: may be its signs, int8, where the settings ask for no more.
        overwrite: the signal's memory may be used for the selected one.
        scratch: memory for what is computed on the way.

    Raises:
        NonFiniteError: a product of signal and activation, or a map's sum, overflows.
    """
    ours = overwrite  # whether the selected signal's memory is
    if settings.tau is not None:
        exceeds = activation
        if not passes_by_sign(settings):
            # A difference of two numbers is never rounded to zero.
            dtype = torch.promote_types(signal.dtype, torch.float32)
            out = scratch.like(signal, "product", dtype)
            exceeds = finite(product(signal, activation, out)).sub_(settings.tau)
        signal, ours = where_positive(signal, exceeds, signal if overwrite else None), True
    if settings.rectified:
        signal, ours = rectified(signal, ours), True
    if not top_k:
        return signal, None
    if not isinstance(settings.k, Tensor) and settings.k == 1.0:
        return signal, signal.new_ones(signal.shape[0], signal.shape[channel], dtype=torch.bool)
    maps = top_maps(finite(totals(signal, channel)), settings.k)
    return keep_maps(signal, maps, channel, out=signal if ours else None), maps
