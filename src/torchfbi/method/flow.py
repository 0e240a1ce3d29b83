"""What the walk saw at a feature."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.method import evidence
from torchfbi.method.maps import channel_dim
from torchfbi.method.settings import Settings
from torchfbi.method.walk import Step


class LayerSupport(NamedTuple):
    """The support at one feature.

    Args:
        layer: the feature's name; the last one is ``"image"``.
        support: (N, ...) bool, positions (or units) at which a signal went on.
        density: (N,) float in [0, 1], the share of True positions.
    """

    layer: str
    support: Tensor
    density: Tensor


class LayerFlow(NamedTuple):
    """What the walk saw at one feature, from the top layer down to the image.

    Args:
        layer: the feature's name, ``"features.28"``; the image is ``"image"``.
        channel: the dimension that counts the maps.
        activation: the forward values, (N, C, ...).
        incoming: the signal before selection, (N, C, ...).
        signal: the signal that went on, (N, C, ...).
        kept_maps: which maps went on, (N, C) bool; all True where no maps were chosen.
        support: positions at which some map's signal went on, or where the walk is after evidence
            those that hold most of it (``method.evidence.support``), (N, ...) bool without C; for
            a dense layer its units, (N, C).
        density: the share of the support's positions that are True, (N,) in [0, 1].
        evidence: the signed evidence at each position, the sum over the maps of signal times
            activation (``method.evidence``), (N, ...) without C; for a dense layer that of each
            unit, (N, C). At the image that of the pixels, or where the walk is after a signal its
            magnitude.
    """

    layer: str
    channel: int
    activation: Tensor
    incoming: Tensor
    signal: Tensor
    kept_maps: Tensor
    support: Tensor
    density: Tensor
    evidence: Tensor


def observe(
    step: Step, settings: Settings, support: Callable[[Tensor], Tensor] = evidence.support
) -> LayerFlow:
    """The record of one feature, or of the image.

    Args:
        settings: of the walk: what ``values`` are decides what carries a support.
        support: finds the positions that hold most of the evidence; there is a faster one.
    """
    node, value, incoming, s, maps, _ = step
    channel, after_evidence = channel_dim(node), settings.values == "evidence"
    if node.op == "placeholder":
        e = evidence.of_values(s, settings)
    else:
        e = evidence.of_feature(s, value, channel) if s.ndim > 2 else s * value
    if after_evidence:
        carries = support(e)
    elif s.ndim > 2:
        carries = (s != 0).any(channel)
    else:
        carries = s != 0
    if maps is None:
        maps = torch.ones(s.shape[0], s.shape[channel], dtype=torch.bool, device=s.device)
    density = carries.flatten(1).float().mean(1)
    layer = node.meta.get("layer", "image")
    return LayerFlow(layer, channel, value, incoming, s, maps, carries, density, e)
