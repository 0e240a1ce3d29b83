"""Adjoints of operators that take entries from places: lists of them, windows, a sampling grid.

All are linear in the entries; the places are held constant, also where they follow from the image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.method.adjoints.registry import Site, adjoint, tensor_arguments

aten = torch.ops.aten


@adjoint(aten.index_select.default)
def index_select(s: Tensor, at: Site, x: Tensor, dim: int, index: Tensor) -> Tensor:
    """Every entry returns to where it was taken, repeated ones are summed."""
    return s.new_zeros(x.shape).index_add(dim, index, s)


@adjoint(aten.gather.default, keeps=("inputs",))
def gather(
    s: Tensor, at: Site, x: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False
) -> Tensor:
    """Every entry returns to where it was taken, repeated ones are summed."""
    zeros = s.new_zeros(x.shape)
    return zeros.scatter_add(dim, index.expand(s.shape), s) if x.ndim else s.reshape(())


def _within_samples(node: fx.Node) -> list[fx.Node]:
    """What is indexed; nothing where samples are, through which the walk goes one by one."""
    indices: Any = node.args[1]
    return tensor_arguments(node)[:1] if indices[0] is None else []


@adjoint(aten.index.Tensor, keeps=("inputs",), receivers=_within_samples)
def index(s: Tensor, at: Site, x: Tensor, indices: list[Tensor | None]) -> Tensor:
    """Every entry returns to where it was taken, repeated ones are summed."""
    added: Tensor = aten.index_put.default(s.new_zeros(x.shape), indices, s, True)
    return added


def _put_within_samples(node: fx.Node) -> list[fx.Node]:
    """What was there, and what was put; nothing where samples are indexed."""
    indices: Any = node.args[1]
    first, *_, values = tensor_arguments(node)
    return [first, values] if indices[0] is None else []


@adjoint(aten.index_put.default, keeps=("inputs",), receivers=_put_within_samples)
def index_put(
    s: Tensor,
    at: Site,
    x: Tensor,
    indices: list[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
) -> list[Tensor | None]:
    """What was put gets the signal of its place, and what was there before no longer, unless the
    two were added."""
    zero = s.new_zeros(())
    kept = s if accumulate else aten.index_put.default(s, indices, zero)
    put: Tensor = aten.index.Tensor(s, indices).sum_to_size(values.shape)
    return [kept, *[None] * sum(index is not None for index in indices), put.to(values.dtype)]


@adjoint(aten.unfold.default)
def unfold(s: Tensor, at: Site, x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows are put back over each other and summed."""
    places = torch.arange(x.shape[dim], device=s.device).unfold(0, size, step)
    dim = dim % x.ndim
    rows = s.movedim(-1, dim + 1).flatten(dim, dim + 1)
    return s.new_zeros(x.shape).index_add(dim, places.flatten(), rows)


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
    """Windows are put back over each other and summed."""
    return aten.col2im.default(s, x.shape[-2:], kernel, dilation, padding, stride)


@adjoint(aten.col2im.default)
def col2im(
    s: Tensor,
    at: Site,
    x: Tensor,
    sizes: list[int],
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Tensor:
    """Every window gets what lies in it."""
    return aten.im2col.default(s, kernel, dilation, padding, stride)


@adjoint(aten.grid_sampler_2d.default, aten.grid_sampler_3d.default, keeps=("inputs",))
def grid_sampler(
    s: Tensor, at: Site, x: Tensor, grid: Tensor, mode: int, padding: int, corners: bool
) -> Tensor:
    """Every sample returns to the pixels that it was interpolated from; where it was taken is held
    constant."""
    back: Any = {4: aten.grid_sampler_2d_backward, 5: aten.grid_sampler_3d_backward}[x.ndim]
    grid, like = grid.expand(len(s), *grid.shape[1:]), s.new_empty(x.shape)
    returned: Tensor = back.default(s, like, grid, mode, padding, corners, [True, False])[0]
    return returned


@adjoint(aten.max_unpool2d.default, aten.max_unpool3d.default, keeps=("inputs",))
def max_unpool(s: Tensor, at: Site, x: Tensor, indices: Tensor, *window: Any) -> Tensor:
    """What was put at an index is taken from there."""
    first = x.ndim - 2 if at.node.target is aten.max_unpool2d.default else x.ndim - 3
    places = indices.expand(x.shape).flatten(first)
    return s.flatten(first).gather(first, places).reshape(x.shape)
