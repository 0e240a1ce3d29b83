"""What a metric takes: refused in one place, with one sentence."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.errors import InputError


def checked_maps(maps: Tensor, samples: int | None = None, signed: bool = False) -> Tensor:
    """The maps in float64 on the CPU, (N, H, W).

    Raises:
        InputError: another shape, an infinite or NaN value, a negative one unless ``signed``, or
            not ``samples`` maps.
    """
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise InputError(f"the maps have shape {tuple(maps.shape)}: a metric takes (N, H, W).")
    if samples is not None and len(maps) != samples:
        raise InputError(f"there are {len(maps)} maps for {samples} samples: give one for each.")
    values = maps.detach().cpu().double()
    if signed and not torch.isfinite(values).all():
        raise InputError("a map holds an infinite or NaN value: there is no order of its pixels.")
    if not signed and not (torch.isfinite(values) & (values >= 0)).all():
        raise InputError(
            "a map holds a negative, infinite or NaN value: reduce signed attributions to maps "
            ">= 0 first, by their magnitude or their positive part."
        )
    return values


def checked_masks(masks: Tensor, maps: Tensor) -> Tensor:
    """The masks of the checked ``maps`` as bool (N, H, W) on the CPU; one (H, W) serves all.

    Raises:
        InputError: another shape, or not bool.
    """
    if masks.dtype != torch.bool:
        raise InputError(f"the masks are {masks.dtype}: say which pixels are in, as torch.bool.")
    if masks.shape not in (maps.shape, maps.shape[1:]):
        raise InputError(
            f"the masks have shape {tuple(masks.shape)}, the maps {tuple(maps.shape)}: give one "
            "mask for each map, or one (H, W) for all."
        )
    return masks.cpu().expand(maps.shape)
