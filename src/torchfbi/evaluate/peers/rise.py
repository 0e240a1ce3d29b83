"""RISE: what the network says of the image behind random masks (Petsiuk et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from torchfbi.evaluate.peers.network import probabilities_of

COUNT = 500
"""Masks. The paper takes 4000 to 8000 (section 4), which on a CPU is minutes for every image."""

CELLS, KEPT = 7, 0.5
"""Cells along each side of a mask, and the probability that one is kept (section 4)."""

CHUNK = 32


def masks(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Smooth random masks (section 3.2).

    Each cell of a coarse grid is 1 with probability ``KEPT``, else 0. The grid is upsampled
    bilinearly to one cell more than the image in both directions, of which a part of the image's
    size is cut out at random.

    Args:
        count: how many.
        size: height and width.
        seed: of the generator.

    Returns:
        (count, 1, H, W) float32 in [0, 1].
    """
    generator = torch.Generator().manual_seed(seed)
    grids = (torch.rand(count, 1, CELLS, CELLS, generator=generator) < KEPT).float()
    cell = [-(-side // CELLS) for side in size]
    large = [(CELLS + 1) * side for side in cell]
    cut = []
    for grid in grids:
        top, left = (int(torch.randint(side, (), generator=generator)) for side in cell)
        smooth = interpolate(grid[None], size=large, mode="bilinear", align_corners=False)
        cut.append(smooth[0, :, top : top + size[0], left : left + size[1]])
    return torch.stack(cut)


def rise(
    module: nn.Module, x: Tensor, target: Tensor, seed: int = 0, *, count: int = COUNT
) -> Tensor:
    """The mean of the masks, weighted by the class's probability behind each (equation 6).

    S(x, y) = 1 / (KEPT * count) sum_i p_c(image * M_i) M_i(x, y). A masked pixel is 0 in the
    network's own units, the mean colour. All images of a batch see the same masks.

    Returns:
        (N, 1, H, W), >= 0.
    """
    probabilities = probabilities_of(module, x)
    height, width = x.shape[-2:]
    drawn = masks(count, (height, width), seed).to(x)
    total = torch.zeros_like(x[:, :1])
    for chunk in torch.split(drawn, max(1, CHUNK // len(x))):
        masked = (x[:, None] * chunk).flatten(0, 1)
        classes = target.repeat_interleave(len(chunk))[:, None]
        score = probabilities(masked).gather(1, classes).reshape(len(x), -1)
        total += torch.einsum("nm,mchw->nchw", score, chunk)
    return total / (KEPT * count)
