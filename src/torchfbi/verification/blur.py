"""The image without its detail."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, conv3d, pad

_CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, cut off at three standard deviations; edges are continued outwards.

    Args:
        images: (N, C, ...) floating point, with one to three dimensions after the channels.
        sigma: the standard deviation in pixels, > 0.
    """
    channels, dimensions = images.shape[1], images.ndim - 2
    reach = math.ceil(3 * sigma)
    distance = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    line = weights / weights.sum()
    blurred = pad(images, (reach,) * (2 * dimensions), mode="replicate")
    for axis in reversed(range(dimensions)):
        along = [-1 if other == axis else 1 for other in range(dimensions)]
        kernel = line.reshape(along).expand(channels, 1, *[-1] * dimensions)
        blurred = _CONVOLUTIONS[dimensions](blurred, kernel, groups=channels)
    return blurred
