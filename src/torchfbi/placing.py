"""Placing: one walk decided where, another one drew what.

The signed walk localises, but its picture is speckled; the paper's positive walk draws rims, eyes
and wheels, but the same ones for every class. So the first weighs the pixels of the second.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchfbi.settings import Settings

WINDOWS_PER_SIDE = 45


def place(drawn: Tensor, evidence: Tensor, settings: Settings) -> Tensor:
    """Keep of a drawing what lies where the evidence is.

    The evidence is rectified and averaged over a window of about 1/22 of the map's side, since
    single positions are noisy; r is the result, upsampled and divided by its maximum. Pixels
    with r > place_gate stay, weighted by r^place_power.

    Args:
        drawn: the signal at the image, (N, C, ...).
        evidence: the sum over the maps of signal times activation at the graph's stem,
            (N, ...), of as many spatial dimensions.
        settings: ``place_gate`` and ``place_power``.

    Returns:
        A tensor like ``drawn``; zero for a sample without positive evidence.
    """
    sizes: Any = drawn.shape[2:]
    pool, mode = _BY_DIMENSIONS[len(sizes)]
    reach = [round(size / WINDOWS_PER_SIDE) for size in evidence.shape[1:]]
    smooth = pool(
        torch.relu(evidence)[:, None],
        [2 * r + 1 for r in reach],
        stride=1,
        padding=reach,
        count_include_pad=False,
    )
    fine = functional.interpolate(smooth, size=sizes, mode=mode, align_corners=False)
    largest = fine.flatten(1).amax(1).reshape([-1] + [1] * (drawn.ndim - 1))
    relative = fine / largest.clamp(min=torch.finfo(fine.dtype).tiny)
    weight = torch.where(relative > settings.place_gate, relative**settings.place_power, 0.0)
    return drawn * weight


_BY_DIMENSIONS: dict[int, tuple[Any, str]] = {
    1: (functional.avg_pool1d, "linear"),
    2: (functional.avg_pool2d, "bilinear"),
    3: (functional.avg_pool3d, "trilinear"),
}
