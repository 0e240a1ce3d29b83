"""Controls: maps that know nothing of the network. What does not beat them shows nothing."""

from __future__ import annotations

import zlib
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from torchfbi.evaluate.peers.network import Operator, graph_of, to_image, top_layer
from torchfbi.explanation.predict import executable
from torchfbi.method.maps import channel_dim


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


def gate(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """Where the top layer sees evidence, and nothing else, (N, 1, H, W) >= 0.

    ReLU of the sum over its maps of gradient times activation (HiResCAM, Draelos and Carin 2020),
    upsampled bilinearly.

    Raises:
        CaptureError: the network has no such layer.
    """
    graph = graph_of(module, x)
    node = top_layer(graph)
    seen: list[Tensor] = []

    def look(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(cast(Any, node.target)(*args, **kwargs))
        return seen[0]

    logits = executable(graph, {node: Operator(look)})(x.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), seen)
    return to_image((gradient * seen[0]).sum(channel_dim(node)).relu().detach(), x)


def edge_x_gate(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """``edge`` times ``gate``: an edge detector that is told where to look, (N, 1, H, W)."""
    return edge(module, x, target, seed) * gate(module, x, target, seed)
