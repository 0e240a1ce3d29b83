"""Controls: maps that know nothing of the network. What does not beat them shows nothing."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from torchfbi.peers import own


def random(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """Uniform noise in [0, 1), (N, 1, H, W).

    It follows from the seed and the image's own values, so that every image has noise of its
    own, the same in whatever batch it stands and for every class and network.
    """
    noise = [_noise(image, seed) for image in x]
    return torch.stack(noise).to(x)


def _noise(image: Tensor, seed: int) -> Tensor:
    own_number = zlib.crc32(image.double().cpu().numpy().tobytes(), seed & 0xFFFFFFFF)
    generator = torch.Generator().manual_seed(own_number)
    return torch.rand(1, *image.shape[-2:], generator=generator)


def centre(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """A Gaussian at the middle, (N, 1, H, W); its standard deviation is a quarter of the shorter
    side."""
    height, width = x.shape[-2:]
    sigma = min(height, width) / 4
    rows, columns = (
        torch.exp(-0.5 * ((torch.arange(size) - (size - 1) / 2) / sigma) ** 2)
        for size in (height, width)
    )
    return (rows[:, None] * columns).to(x).expand(len(x), 1, -1, -1).clone()


def edge(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """The magnitude of the Sobel gradient of the grey image, (N, 1, H, W).

    Grey is the mean over the channels as the network takes them; borders are continued outwards.
    """
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(x)
    filters = torch.stack([across, across.T])[:, None]
    grey = pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return conv2d(grey, filters).square().sum(1, keepdim=True).sqrt()


def edge_x_gate(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """``edge`` times ``gate``: an edge detector that is told where to look, (N, 1, H, W)."""
    return edge(module, x, target, seed) * own.gate(module, x, target, seed)
