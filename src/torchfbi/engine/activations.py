"""Activation functions: the method's gates, written over the signal where it may be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfbi.engine.positive import rectified, where_positive
from torchfbi.engine.rules import Site, faster
from torchfbi.method.adjoints.activations import GATES
from torchfbi.method.settings import Settings

aten = torch.ops.aten


def _nothing_if_rectified(what: str) -> Any:
    """The signal alone decides then."""

    def reads(settings: Settings, gamma: float) -> set[str]:
        return set() if settings.gates == "rectify" else {what}

    return reads


@faster(aten.relu.default, reads=_nothing_if_rectified("output"))
def relu(s: Tensor, at: Site, x: Tensor) -> Tensor:
    """ReLU of the signal, or the mask of the active units."""
    if at.settings.rectified and not at.rectified:
        s = rectified(s, at.overwrite)
    if at.settings.gates == "rectify":
        return s
    return where_positive(s, at.output, s if at.overwrite else None)


@faster(*GATES, reads=_nothing_if_rectified("inputs"))
def gated(s: Tensor, at: Site, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Times the gate."""
    if at.settings.rectified and not at.rectified:
        s = rectified(s, at.overwrite)
    if at.settings.gates == "rectify":
        return s
    gate = _up_to(at, x, *args) if at.settings.gates == "held" and not kwargs else None
    if gate is None:
        slope = GATES[at.node.target].slope(at.settings.gates)
        gate = slope(x, *args, **kwargs)
    back = s.mul_(gate) if at.overwrite else s * gate
    return back if s.shape == x.shape else back.sum_to_size(x.shape)


def _up_to(at: Site, x: Tensor, *limits: float) -> Tensor | None:
    """The held gate of ReLU6 and its kind, in two passes; None for others."""
    if at.node.target not in (aten.clamp.default, aten.hardtanh.default) or len(limits) < 2:
        return None
    low, high = limits
    if low != 0 or high is None or not high > 0:
        return None
    out = at.scratch.like(x, "product")
    return torch.div(x.new_full((), high), x, out=out).clamp_(0.0, 1.0)
