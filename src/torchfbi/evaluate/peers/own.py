"""Methods that are our own walk under other settings.

The walk sees every activation function, where hooks on ``nn.ReLU`` modules miss ReLU6, SiLU and
functional ReLUs and turn into the plain gradient without a word. As always in the walk, gates
(squeeze-excitation) and the statistics of normalisations are held constant.
"""

from __future__ import annotations

from torch import Tensor, nn

from torchfbi.evaluate.peers.method import Attribute
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.settings import Settings

GUIDED_BACKPROP = Settings(preset="guided-backprop", gates="guided")
"""The signal is rectified at every activation and goes through its derivative."""

DECONVNET = Settings(preset="deconvnet", gates="rectify")
"""The signal is rectified at every activation; of the forward pass only max pooling's switches
are used."""


def walk(settings: Settings) -> Attribute:
    """The attribution method of these settings."""

    def attribute(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
        values: Tensor = ForwardBackward(module, x, settings)(x, target)[0]
        return values

    return attribute
