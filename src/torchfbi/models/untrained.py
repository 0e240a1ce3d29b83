"""Architectures with random weights in which no branch is dead."""

from __future__ import annotations

import torch
from torch import nn

from torchfbi.models import load
from torchfbi.models.model import Model


def untrained(name: str, seed: int = 0) -> Model:
    """Load an architecture with random weights, the same ones every time.

    Those of torchvision and timm are ``shaken``: what they start training with would leave out
    whole branches. Keras' layers have all their branches from the start.

    Args:
        name: as ``torchfbi.load`` takes it.
        seed: of the weights.

    Raises:
        ModelError: the name is unknown, or its library is missing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = load(name, pretrained=False)
        if name.startswith(("torchvision:", "timm:")):
            shaken(model.module)
    return model


def shaken(module: nn.Module, gain: float = 1.0) -> nn.Module:
    """Give statistics, affine terms, scales and gains random values, so that no branch is dead.

    Args:
        module: changed in place.
        gain: the mean of the factors.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith("running_mean"):
            nn.init.normal_(tensor, 0.2, 0.2)
        elif isinstance(tensor, nn.Parameter) and tensor.squeeze().ndim <= 1:
            nn.init.normal_(tensor, gain if "weight" in name else 0.2, 0.2)
        elif isinstance(tensor, nn.Parameter) and not tensor.any():
            nn.init.normal_(tensor, 0.0, 0.1)
    return module
