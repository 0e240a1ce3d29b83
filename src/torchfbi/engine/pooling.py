"""Unpooling with less memory where its windows overlap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfbi.engine.rules import Site, faster
from torchfbi.method.adjoints import pooling
from torchfbi.method.adjoints.pooling import smaller, spread, tiles

aten = torch.ops.aten


@faster(
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    reads=lambda settings, _: {"output"} if settings.pooling == "replicate" else {"inputs"},
)
def max_pool(s: Tensor, at: Site, x: Tensor, *window: Any) -> Tensor:
    """As the method's; where windows do not overlap, the minimum comes before the copies."""
    if at.settings.pooling != "replicate":
        return pooling.max_pool(s, at, x, *window)
    kernel, stride, padding, dilation, _ = window
    if tiles(kernel, stride, padding, dilation):
        return spread(smaller(s, at.output, at.settings), x, *window[:4])
    copies = spread(torch.ones_like(s[:1, :1]), x, *window[:4]).clamp(min=1)
    forward = at.output[:1] if at.output.stride(0) == 0 else at.output  # walks from one image
    shared, forward = spread(s, x, *window[:4]), spread(forward, x, *window[:4])
    if at.settings.rectified:
        return torch.minimum(shared, forward, out=shared).div_(copies)
    return smaller(shared, forward, at.settings).div_(copies)
