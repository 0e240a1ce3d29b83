"""Adjoints of the operators that move, copy, drop or resample entries: all exactly linear."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfbi.method.adjoints.registry import Site, adjoint, tensor_arguments

aten = torch.ops.aten


RESHAPES = (
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
"""Operators that only arrange the same entries in another shape, in the same order."""


@adjoint(*RESHAPES)
def reshape(s: Tensor, at: Site, x: Tensor, *args: Any) -> Tensor:
    """The same entries in the input's shape."""
    return s.reshape(x.shape)


@adjoint(aten.permute.default)
def permute(s: Tensor, at: Site, x: Tensor, dims: list[int]) -> Tensor:
    """The inverse permutation."""
    inverse = [0] * len(dims)
    for position, dim in enumerate(dims):
        inverse[dim % len(dims)] = position
    return s.permute(inverse)


@adjoint(aten.transpose.int)
def transpose(s: Tensor, at: Site, x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Transposed back."""
    return s.transpose(dim0, dim1)


@adjoint(aten.cat.default, receivers=tensor_arguments)
def cat(s: Tensor, at: Site, tensors: list[Tensor], dim: int = 0) -> list[Tensor]:
    """Each part gets back its own slice."""
    return list(torch.split(s, [part.shape[dim] for part in tensors], dim))


@adjoint(aten.stack.default, receivers=tensor_arguments)
def stack(s: Tensor, at: Site, tensors: list[Tensor], dim: int = 0) -> list[Tensor]:
    """Each part gets back its own slice."""
    return list(s.unbind(dim))


@adjoint(aten.slice.Tensor)
def slice_(
    s: Tensor,
    at: Site,
    x: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """Zeros where the slice took nothing."""
    return torch.slice_scatter(s.new_zeros(x.shape), s, dim, start, end, step)


@adjoint(aten.select.int)
def select(s: Tensor, at: Site, x: Tensor, dim: int, index: int) -> Tensor:
    """Zeros everywhere but at the index."""
    return torch.select_scatter(s.new_zeros(x.shape), s, dim, index)


@adjoint(aten.slice_scatter.default, receivers=tensor_arguments)
def slice_scatter(
    s: Tensor,
    at: Site,
    x: Tensor,
    source: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> tuple[Tensor, Tensor]:
    """The slice belongs to the source, the rest to the input."""
    taken = aten.slice.Tensor(s, dim, start, end, step)
    return torch.slice_scatter(s, torch.zeros_like(taken), dim, start, end, step), taken


@adjoint(aten.select_scatter.default, receivers=tensor_arguments)
def select_scatter(
    s: Tensor, at: Site, x: Tensor, source: Tensor, dim: int, index: int
) -> tuple[Tensor, Tensor]:
    """The selected index belongs to the source, the rest to the input."""
    taken = s.select(dim, index)
    return torch.select_scatter(s, torch.zeros_like(taken), dim, index), taken


@adjoint(aten.copy.default, receivers=lambda node: tensor_arguments(node)[1:])
def copy(
    s: Tensor, at: Site, x: Tensor, source: Tensor, non_blocking: bool = False
) -> tuple[None, Tensor]:
    """All goes to what was written, nothing to what it overwrote."""
    return None, s.sum_to_size(source.shape).to(source)


@adjoint(aten.expand.default)
def expand(s: Tensor, at: Site, x: Tensor, size: list[int], implicit: bool = False) -> Tensor:
    """The sum over the copies."""
    return s.sum_to_size(x.shape)


@adjoint(aten.constant_pad_nd.default)
def constant_pad(s: Tensor, at: Site, x: Tensor, pad: list[int], value: float = 0) -> Tensor:
    """The border is cut off again; in a copy, which is dense and may be written over."""
    return aten.constant_pad_nd.default(s, [-width for width in pad])


@adjoint(aten.flip.default)
def flip(s: Tensor, at: Site, x: Tensor, dims: list[int]) -> Tensor:
    """Flipped back."""
    return s.flip(dims)


@adjoint(aten.roll.default)
def roll(
    s: Tensor, at: Site, x: Tensor, shifts: list[int], dims: list[int] | tuple[()] = ()
) -> Tensor:
    """Rolled back."""
    return s.roll([-shift for shift in shifts], dims)


@adjoint(aten.pixel_shuffle.default)
def pixel_shuffle(s: Tensor, at: Site, x: Tensor, upscale_factor: int) -> Tensor:
    """A permutation: its inverse."""
    return F.pixel_unshuffle(s, upscale_factor)


@adjoint(aten.pixel_unshuffle.default)
def pixel_unshuffle(s: Tensor, at: Site, x: Tensor, downscale_factor: int) -> Tensor:
    """A permutation: its inverse."""
    return F.pixel_shuffle(s, downscale_factor)


@adjoint(aten.channel_shuffle.default)
def channel_shuffle(s: Tensor, at: Site, x: Tensor, groups: int) -> Tensor:
    """A permutation: its inverse."""
    return F.channel_shuffle(s, x.shape[1] // groups)


@adjoint(aten.repeat.default)
def repeat(s: Tensor, at: Site, x: Tensor, repeats: list[int]) -> Tensor:
    """The sum over the copies."""
    new = len(repeats) - x.ndim
    sizes = [*repeats[:new]]
    for times, size in zip(repeats[new:], x.shape, strict=True):
        sizes += [times, size]
    copies = [*range(new), *range(new, len(sizes), 2)]
    return s.reshape(sizes).sum(copies)


@adjoint(aten.cumsum.default)
def cumsum(s: Tensor, at: Site, x: Tensor, dim: int, **kwargs: Any) -> Tensor:
    """Every entry counts in all sums from its own on."""
    return s.flip(dim).cumsum(dim).flip(dim).to(x.dtype)


@adjoint(aten.diagonal.default)
def diagonal(
    s: Tensor, at: Site, x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """Zeros everywhere but on the diagonal."""
    return torch.diagonal_scatter(s.new_zeros(x.shape), s, offset, dim1, dim2)


@adjoint(aten.tril.default, aten.triu.default)
def triangle(s: Tensor, at: Site, x: Tensor, diagonal: int = 0) -> Tensor:
    """The same triangle of the signal."""
    keep: Any = at.node.target
    return keep(s, diagonal)


SHAPE_ONLY = (
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)
"""Operators that read nothing but a shape."""


@adjoint(*SHAPE_ONLY, receivers=lambda node: [])
def constant(s: Tensor, at: Site, x: Tensor, *args: Any, **kwargs: Any) -> None:
    """Only the input's shape was read: nothing flows."""


@adjoint(aten._to_copy.default, aten.to.dtype, aten.to.device)
def cast(s: Tensor, at: Site, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Back in the input's dtype, on its device."""
    return s.to(x)


@adjoint(
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.reflection_pad3d.default,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.replication_pad3d.default,
    aten.pad.default,
)
def border_pad(
    s: Tensor, at: Site, x: Tensor, pad: list[int], mode: str = "", value: float | None = None
) -> Tensor:
    """Border pixels return to the pixels they are copies of."""
    kind = mode or ("reflect" if "reflection" in str(at.node.target) else "replicate")
    for axis in range(len(pad) // 2):
        ends = pad[2 * axis : 2 * axis + 2]
        dim = s.ndim - 1 - axis
        n = x.shape[dim]
        basis = torch.eye(n, dtype=s.dtype, device=s.device).unsqueeze(0)
        s = along_axis(s, F.pad(basis, ends, kind)[0], dim)
    return s


@adjoint(
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.vec,
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec,
    aten._upsample_bilinear2d_aa.vec,
    aten._upsample_bicubic2d_aa.vec,
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact3d.vec,
)
def upsample(s: Tensor, at: Site, x: Tensor, size: list[int] | None, *args: Any) -> Tensor:
    """Interpolation works on each axis alone, so its adjoint does."""
    operator: Any = at.node.target
    *aligned, scales = args

    def resize(basis: Tensor, axis: int) -> Tensor:
        # Two pixels wide: PyTorch's antialiased kernel is wrong where the width is 1.
        wide = [n if i == axis else 2 for i, n in enumerate(basis.shape[2:])]
        one_size = None if size is None else [n if i == axis else 2 for i, n in enumerate(size)]
        one_scale = (
            None if scales is None else [n if i == axis else 1 for i, n in enumerate(scales)]
        )
        resized = operator(basis.expand(-1, -1, *wide).contiguous(), one_size, *aligned, one_scale)
        others = [i + 2 for i in range(len(wide)) if i != axis]
        return functools.reduce(lambda part, dim: part.narrow(dim, 0, 1), others, resized)

    return separable(s, x, resize)


def separable(s: Tensor, x: Tensor, operator: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The adjoint of an operator that acts on each spatial axis by itself.

    Args:
        s: signal at the output, (N, C, *outputs).
        x: the forward input (only its shape counts), (N, C, *inputs).
        operator: called as ``operator(basis, axis)`` with a basis of shape (n, 1, ..., n, ...),
            whose spatial size is n along ``axis`` and 1 elsewhere.
    """
    for axis in range(x.ndim - 2):
        n = x.shape[axis + 2]
        shape = [n, 1, *([1] * (x.ndim - 2))]
        shape[axis + 2] = n
        basis = torch.eye(n, dtype=s.dtype, device=s.device).reshape(shape)
        columns = operator(basis, axis).reshape(n, -1)
        s = along_axis(s, columns, axis + 2)
    return s


def along_axis(s: Tensor, columns: Tensor, dim: int) -> Tensor:
    """Apply the transpose of a one-dimensional operator along ``dim``.

    ``columns[i]`` is the operator's output for the i-th unit vector: (inputs, outputs).
    """
    return (s.movedim(dim, -1) @ columns.T).movedim(-1, dim)
