"""Methods that are our own walk under other settings.

The walk sees every activation function, where hooks on ``nn.ReLU`` modules miss ReLU6, SiLU and
functional ReLUs and turn into the plain gradient without a word. As always in the walk, gates
(squeeze-excitation) and the statistics of normalisations are held constant.
"""

from __future__ import annotations

from torch import Tensor, nn

from torchfbi.peers.method import Attribute
from torchfbi.settings import Settings, Threshold
from torchfbi.walk import ForwardBackward

GUIDED_BACKPROP = Settings(preset="guided-backprop", signs="positive", gates="derivative")
"""The signal is rectified at every activation and goes through its derivative."""

DECONVNET = Settings(preset="deconvnet", gates="rectify")
"""The signal is rectified at every activation; of the forward pass only max pooling's switches
are used."""

RECTGRAD = Settings(
    preset="rectgrad",
    signs="positive",
    gates="derivative",
    threshold=Threshold("quantile", 0.98),
)
"""Units go on whose activation times signal exceeds the layer's 98th percentile. Where that is
negative, zero takes its place; ``signs="positive"`` then rectifies nothing more, since an
activation is positive where its product with a positive signal is."""


def walk(settings: Settings) -> Attribute:
    """The attribution method of these settings."""

    def attribute(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
        values: Tensor = ForwardBackward(module, x, settings)(x, target)[0]
        return values

    return attribute
