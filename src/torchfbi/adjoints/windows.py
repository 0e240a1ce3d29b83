"""Adjoints of cutting maps into windows that may overlap, and of laying windows onto each other."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.adjoints.registry import Site, adjoint

aten = torch.ops.aten


@adjoint(aten.unfold.default)
def unfold(s: Tensor, at: Site, x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Every entry gets the sum of what its windows got."""
    return aten.unfold_backward.default(s, list(x.shape), dimension, size, step)


@adjoint(aten.im2col.default)
def im2col(
    s: Tensor,
    at: Site,
    x: Tensor,
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Tensor:
    """As ``unfold``: the windows are laid onto each other again."""
    return aten.col2im.default(s, list(x.shape[-2:]), kernel, dilation, padding, stride)


@adjoint(aten.col2im.default)
def col2im(
    s: Tensor,
    at: Site,
    x: Tensor,
    size: list[int],
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Tensor:
    """A window gets what the places that it was laid onto got."""
    return aten.im2col.default(s, kernel, dilation, padding, stride)
