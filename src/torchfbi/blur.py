"""The image without its detail."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, cut off at three standard deviations; edges are continued outwards.

    Args:
        images: (N, C, H, W) floating point.
        sigma: the standard deviation in pixels, > 0.
    """
    channels, reach = images.shape[1], math.ceil(3 * sigma)
    distance = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    row = (weights / weights.sum()).expand(channels, 1, 1, -1)
    padded = pad(images, (reach,) * 4, mode="replicate")
    rows = conv2d(padded, row, groups=channels)
    return conv2d(rows, row.transpose(2, 3), groups=channels)
