"""Methods that are our own walk under other settings.

The walk sees every activation function, where hooks on ``nn.ReLU`` modules miss ReLU6, SiLU and
functional ReLUs and turn into the plain gradient without a word. As always in the walk, gates
(squeeze-excitation) and the statistics of normalisations are held constant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from torchfbi.peers.method import Attribute
from torchfbi.settings import Settings
from torchfbi.signals import Signals
from torchfbi.walk import ForwardBackward, Look

GUIDED_BACKPROP = Settings(preset="guided-backprop", gates="guided")
"""The signal is rectified at every activation and goes through its derivative."""

DECONVNET = Settings(preset="deconvnet", gates="rectify")
"""The signal is rectified at every activation; of the forward pass only max pooling's switches
are used."""

_QUANTILE = 0.98
"""Of a layer's entries, below which RectGrad lets nothing through."""


def walk(settings: Settings) -> Attribute:
    """The attribution method of these settings."""

    def attribute(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
        values: Tensor = ForwardBackward(module, x, settings)(x, target)[0]
        return values

    return attribute


def rectgrad(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """Units pass the gradient on whose activation times signal exceeds the layer's 98th percentile,
    and zero where that is negative."""
    values: Tensor = _RectGrad(module, x, GUIDED_BACKPROP)(x, target)[0]
    return values


class _RectGrad(ForwardBackward):
    def _select(
        self, node: fx.Node, s: Tensor, value: Tensor, look: Look, signals: Signals
    ) -> tuple[Tensor, Tensor | None]:
        if node in self.graph.features:
            p = (s * value).flatten(1)
            rank = max(1, math.ceil(_QUANTILE * p.shape[1]))
            limit = p.kthvalue(rank, dim=1).values.clamp(min=0).reshape([-1] + [1] * (s.ndim - 1))
            s = torch.where(p.reshape(s.shape) > limit, s, 0.0)
        return super()._select(node, s, value, look, signals)
