"""Placing: what arrives at the image is weighed by the evidence at the first feature.

Single pixels of a signed signal say little. The evidence of the finest feature, taken together
over a small window, says where they may be believed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchfbi.settings import Settings

WINDOWS_PER_SIDE = 45


def antialias(signal: Tensor, feature: Tensor) -> Tensor:
    """Smooth away the grid that the strides up to the first feature left in the signal.

    The adjoint of a layer with stride r puts its signal onto every r-th pixel and what its filters
    happen to hold between them. A triangle of width 2r - 1 on each axis, the kernel of linear
    interpolation, takes out what repeats every r pixels (Oppenheim & Schafer, Discrete-Time
    Signal Processing, section 4.6.2). With stride 1 the signal stays as it is.

    Args:
        signal: s at the image, (N, C, ...).
        feature: the first feature's evidence, (N, ...), of as many spatial dimensions; only its
            sizes count.

    Returns:
        A tensor like ``signal``.
    """
    sizes, channels = signal.shape[2:], signal.shape[1]
    convolve: Any = _CONVOLUTIONS[len(sizes)]
    for axis, (fine, coarse) in enumerate(zip(sizes, feature.shape[1:], strict=True)):
        stride = max(1, round(fine / coarse))
        if stride == 1:
            continue
        rise = torch.arange(1, stride + 1, device=signal.device, dtype=signal.dtype)
        triangle = torch.cat([rise, rise.flip(0)[1:]]) / stride**2
        shape, reach = [1] * len(sizes), [0] * len(sizes)
        shape[axis], reach[axis] = 2 * stride - 1, stride - 1
        kernel = triangle.reshape(1, 1, *shape).expand(channels, 1, *shape)
        signal = convolve(signal, kernel, padding=reach, groups=channels)
    return signal


def place(signal: Tensor, evidence: Tensor, settings: Settings) -> Tensor:
    """Keep of a signal at the image what lies where the evidence is.

    The evidence is rectified and averaged over a window of about 1/22 of the map's side, since
    single positions are noisy; r is the result, upsampled and divided by its maximum. Pixels
    with r > place_gate stay, weighted by r^place_power.

    Args:
        signal: s at the image, (N, C, ...).
        evidence: the sum over the maps of signal times activation at the graph's stem,
            (N, ...), of as many spatial dimensions.
        settings: ``place_gate``, which must not be None, and ``place_power``.

    Returns:
        A tensor like ``signal``; zero for a sample without positive evidence.
    """
    assert settings.place_gate is not None
    sizes: Any = signal.shape[2:]
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
    largest = fine.flatten(1).amax(1).reshape([-1] + [1] * (signal.ndim - 1))
    relative = fine / largest.clamp(min=torch.finfo(fine.dtype).tiny)
    weight = torch.where(relative > settings.place_gate, relative**settings.place_power, 0.0)
    return signal * weight


_BY_DIMENSIONS: dict[int, tuple[Any, str]] = {
    1: (functional.avg_pool1d, "linear"),
    2: (functional.avg_pool2d, "bilinear"),
    3: (functional.avg_pool3d, "trilinear"),
}
_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
