"""Methods that are our own walk under other settings.

The walk sees every activation function, where hooks on ``nn.ReLU`` modules miss ReLU6, SiLU and
functional ReLUs and turn into the plain gradient without a word. As always in the walk, gates
(squeeze-excitation) and the statistics of normalisations are held constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import interpolate

from torchfbi.errors import CaptureError
from torchfbi.peers.method import Attribute
from torchfbi.settings import Settings, Threshold
from torchfbi.signals import Signals
from torchfbi.walk import ForwardBackward, Look

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


def gate(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """Where the default preset's evidence gate sees evidence, and nothing else.

    e(x, y) is the ReLU of the sum over the maps of signal times activation at the gate, before
    anything is gated, upsampled bilinearly to the image.

    Returns:
        (N, 1, H, W), >= 0.

    Raises:
        CaptureError: the network has no tensor with spatial extent at which a gate could stand.
    """
    fbi = _AtTheGate(module, x, _UNGATED)
    fbi(x, target)
    if fbi.seen is None:
        raise CaptureError(
            "this network has no evidence gate: no activation function with spatial extent lies "
            "below its logits."
        )
    return to_image(fbi.seen, x)


_UNGATED = Settings.contrast(evidence_gate=None, evidence_power=0.0)


class _AtTheGate(ForwardBackward):
    """Notes the evidence where the gate would stand."""

    seen: Tensor | None = None

    def _select(
        self, node: fx.Node, s: Tensor, value: Tensor, look: Look, signals: Signals
    ) -> tuple[Tensor, Tensor | None]:
        selected, maps = super()._select(node, s, value, look, signals)
        if node is self.graph.evidence:
            self.seen = torch.relu((selected * value).sum(self.graph.channel[node]))
        return selected, maps


def to_image(coarse: Tensor, x: Tensor) -> Tensor:
    """Coarse maps (N, h, w) upsampled bilinearly to (N, 1, H, W), the size of images ``x``."""
    size: Any = x.shape[-2:]
    return interpolate(coarse[:, None], size=size, mode="bilinear", align_corners=False)
