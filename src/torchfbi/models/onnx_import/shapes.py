"""Operators that rearrange, cut, repeat, reduce or resize tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchfbi.models.images import Array
from torchfbi.models.onnx_import.registry import Call, operator


@operator("Reshape", numbers=(1,))
def reshape(call: Call, x: Tensor, shape: Array) -> Tensor:
    """0 copies a size of the input. Where the batch is only passed on, it stays free."""
    sizes = list(shape.tolist())
    if not call.get("allowzero", 0):
        sizes = [x.shape[i] if same(size, 0) else size for i, size in enumerate(sizes)]
    if len(sizes) > 1 and x.ndim and _passes_batch(sizes, x, call.batch):
        sizes[0] = x.shape[0]
    return x.reshape(sizes)


def _passes_batch(sizes: list[Any], x: Tensor, batch: int | None) -> bool:
    """Whether the first dimension is what it was, and only the others are rearranged."""
    if -1 in sizes[1:]:
        return same(sizes[0], batch)
    known = all(isinstance(size, int) for size in (*sizes[1:], *x.shape[1:]))
    return known and math.prod(sizes[1:]) == math.prod(x.shape[1:])


@operator("Flatten")
def flatten(call: Call, x: Tensor) -> Tensor:
    """Two dimensions: those before the axis, and the others."""
    axis = call.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.flatten(1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


@operator("Transpose")
def transpose(call: Call, x: Tensor) -> Tensor:
    """All dimensions turned round unless told otherwise."""
    return x.permute(call.get("perm", list(reversed(range(x.ndim)))))


@operator("Squeeze", numbers=(1,))
def squeeze(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
    """The axes are an attribute up to opset 12."""
    dims = axes_of(call, axes)
    if dims is None:  # never the batch, which just happens to be one
        dims = [i for i, size in enumerate(x.shape) if i and same(size, 1)]
    return x.squeeze([d for d in dims if same(x.shape[d], 1)])


@operator("Unsqueeze", numbers=(1,))
def unsqueeze(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
    """The axes are an attribute up to opset 12, and count in the result."""
    dims = axes_of(call, axes) or []
    for dim in sorted(d % (x.ndim + len(dims)) for d in dims):
        x = x.unsqueeze(dim)
    return x


@operator("Expand", numbers=(1,))
def expand(call: Call, x: Tensor, shape: Array) -> Tensor:
    """Repeats along dimensions of one; a size of one in the shape keeps what is there."""
    sizes = [1] * (x.ndim - len(shape)) + list(shape.tolist())
    now = [1] * (len(sizes) - x.ndim) + list(x.shape)
    return x.expand([n if same(size, 1) else size for size, n in zip(sizes, now, strict=True)])


@operator("Concat")
def concat(call: Call, *inputs: Tensor) -> Tensor:
    """Along the axis."""
    return torch.cat(inputs, call.get("axis", 1))


@operator("Split", numbers=(1,))
def split(call: Call, x: Tensor, sizes: Array | None = None) -> tuple[Tensor, ...]:
    """Into parts of given sizes (an attribute up to opset 12), or into equal ones."""
    axis = call.get("axis", 0)
    parts = call.get("split") if sizes is None else sizes.tolist()
    parts = parts or -(-x.shape[axis] // call.outputs)
    return x.split(parts, axis)  # type: ignore[no-untyped-call]


@operator("Slice", numbers=(1, 2, 3, 4))
def cut(
    call: Call,
    x: Tensor,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Tensor:
    """As Python's slices. All numbers are attributes up to opset 9."""
    first = call.get("starts") if starts is None else starts.tolist()
    last = call.get("ends") if ends is None else ends.tolist()
    dims = call.get("axes") if axes is None else axes.tolist()
    by = [1] * len(first) if steps is None else steps.tolist()
    for i, dim in enumerate(dims or range(len(first))):
        if by[i] < 0:
            raise ValueError("a slice with a negative step")
        window = [slice(None)] * x.ndim
        window[dim] = slice(first[i], last[i], by[i])
        x = x[tuple(window)]
    return x


@operator("Gather", numbers=(1,))
def gather(call: Call, x: Tensor, indices: Array) -> Tensor:
    """One entry along an axis, or several."""
    axis = call.get("axis", 0)
    if indices.ndim == 0:
        return x.select(axis, indices.item())
    if indices.ndim > 1:
        raise ValueError("a table of indices")
    wanted = [int(i) % x.shape[axis] for i in indices.tolist()]
    if wanted == list(range(wanted[0], wanted[0] + len(wanted))):
        return x.narrow(axis, wanted[0], len(wanted))
    return x.index_select(axis, torch.tensor(wanted, device=x.device))


@operator("GatherND", numbers=(1,))
def gather_nd(call: Call, x: Tensor, indices: Array) -> Tensor:
    """The entries at a table of places in the first dimensions."""
    if call.get("batch_dims", 0):
        raise ValueError("a table of indices for each sample")
    depth = indices.shape[-1]
    sides = tuple(x.shape[:depth])
    places = tuple(indices[..., i].astype(int) % side for i, side in enumerate(sides))
    flat = np.ravel_multi_index(places, sides)
    picked = x.flatten(0, depth - 1).index_select(0, torch.tensor(flat.ravel(), device=x.device))
    return picked.reshape(*flat.shape, *x.shape[depth:])


@operator("Tile", numbers=(1,))
def tile(call: Call, x: Tensor, repeats: Array) -> Tensor:
    """Copies side by side."""
    return x.repeat(repeats.tolist())


@operator("ConstantOfShape", numbers=(0,))
def constant_of_shape(call: Call, shape: Array) -> Tensor:
    """One number everywhere."""
    value = call.get("value")
    return torch.full(shape.tolist(), 0.0 if value is None else value.item())


@operator("Range", numbers=(0, 1, 2))
def grid(call: Call, start: Array, stop: Array, step: Array) -> Tensor:
    """From start by steps, without stop."""
    return torch.arange(start.item(), stop.item(), step.item(), dtype=torch.float32)


@operator("Pad", numbers=(1, 2, 3))
def pad(
    call: Call,
    x: Tensor,
    widths: Array | None = None,
    value: Array | None = None,
    axes: Array | None = None,
) -> Tensor:
    """Widths are attributes up to opset 10; PyTorch counts from the last dimension."""
    width = call.get("pads") if widths is None else widths.tolist()
    fill = call.get("value", 0.0) if value is None else value.item()
    dims = range(x.ndim) if axes is None else axes.tolist()
    ends = dict.fromkeys(range(x.ndim), (0, 0))
    for i, dim in enumerate(dims):
        ends[dim % x.ndim] = (width[i], width[i + len(dims)])
    while len(ends) > 1 and next(iter(ends.values())) == (0, 0):
        del ends[next(iter(ends))]
    order = [int(side) for dim in sorted(ends, reverse=True) for side in ends[dim]]
    mode = call.get("mode", "constant")
    if mode == "constant":
        return F.pad(x, order, value=fill)
    return F.pad(x, order, {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


@operator("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", numbers=(1,))
def reduce(call: Call, x: Tensor, axes: Array | None = None) -> Tensor:
    """The axes are an attribute up to opset 17 (of sums: 12); without any, all."""
    dims = axes_of(call, axes)
    if not dims and call.get("noop_with_empty_axes", 0):
        return x
    functions: dict[str, Any] = {
        "ReduceMean": torch.mean, "ReduceSum": torch.sum,
        "ReduceMax": torch.amax, "ReduceMin": torch.amin,
    }  # fmt: skip
    return functions[call.operator](x, dims or list(range(x.ndim)), bool(call.get("keepdims", 1)))


@operator("DepthToSpace")
def depth_to_space(call: Call, x: Tensor) -> Tensor:
    """Blocks of maps become blocks of pixels."""
    n = call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, n)
    maps, height, width = x.shape[1:]
    blocks = x.reshape(-1, n, n, maps // n**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(-1, maps // n**2, height * n, width * n)


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: Tensor) -> Tensor:
    """Blocks of pixels become blocks of maps."""
    n = call.get("blocksize")
    maps, height, width = x.shape[1:]
    blocks = x.reshape(-1, maps, height // n, n, width // n, n)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(-1, maps * n**2, height // n, width // n)


@operator("Upsample", numbers=(1,))
def upsample(call: Call, x: Tensor, scales: Array | None = None) -> Tensor:
    """What Resize was up to opset 9."""
    factors = call.get("scales") if scales is None else scales.tolist()
    simple = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    modes = {"mode": call.get("mode", "nearest"), **simple}
    return _resize(call._replace(attributes=modes), x, factors[2:], None)


@operator("Resize", numbers=(1, 2, 3))
def resize(
    call: Call,
    x: Tensor,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
) -> Tensor:
    """To sizes or by scales, where PyTorch has the same rule for the places of pixels."""
    if call.opset < 11:
        simple = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        call, scales = call._replace(attributes={**call.attributes, **simple}), roi
    dims = [d % x.ndim for d in call.get("axes", range(x.ndim))]
    factors, size = (
        None
        if given is None or not given.size
        else [dict(zip(dims, given.tolist(), strict=True)).get(d) for d in range(2, x.ndim)]
        for given in (scales, sizes)
    )
    if None in (factors or size or [None]):
        raise ValueError("neither scales nor sizes, or not for all sides")
    return _resize(call, x, factors, size)


def _resize(call: Call, x: Tensor, factors: list[Any] | None, size: list[Any] | None) -> Tensor:
    mode = call.get("mode", "nearest")
    places = call.get("coordinate_transformation_mode", "half_pixel")
    rounding = call.get("nearest_mode", "round_prefer_floor")
    unusual = call.get("antialias", 0) or call.get("exclude_outside", 0)
    if mode == "nearest":
        whole = all(
            float(f).is_integer()
            for f in factors or [n / m for n, m in zip(size or (), x.shape[2:], strict=True)]
        )
        # By a whole factor all pixels of a block are nearest to the same one.
        known = (places, rounding) == ("asymmetric", "floor") or (
            whole and "half_pixel" in places and "round" in rounding
        )
    else:
        whole = factors is None or all(
            float(n * f).is_integer() for n, f in zip(x.shape[2:], factors, strict=True)
        )
        # To one pixel pytorch_half_pixel takes the first, and PyTorch, in spite of the name, the
        # middle; and of a size that is cut off the standard and its runtimes align other corners.
        first = 1 in (size or [math.floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True)])
        known = (
            places == "half_pixel"
            or (places == "pytorch_half_pixel" and not first)
            or (places == "align_corners" and whole)
        )
    if mode == "cubic":
        known = known and math.isclose(call.get("cubic_coeff_a", -0.75), -0.75)
    if unusual or not known or call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError(f"mode {mode} with {places} places and {rounding}")
    sides = x.ndim - 2
    kinds = {"nearest": "nearest", "linear": ("linear", "bilinear", "trilinear")[sides - 1],
             "cubic": "bicubic"}  # fmt: skip
    aligned = None if mode == "nearest" else places == "align_corners"
    if factors is not None and aligned:  # there the factors follow from the sizes
        size = [math.floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True)]
    return F.interpolate(
        x,
        size=size,
        scale_factor=None if size is not None else factors,
        mode=kinds[mode],
        align_corners=aligned,
    )


def axes_of(call: Call, given: Array | None) -> list[int] | None:
    """The axes, from the input or the attribute."""
    return call.get("axes") if given is None else [int(axis) for axis in given.tolist()]


def same(size: Any, number: int | None) -> bool:
    """Whether a size is this number; a free batch size is none."""
    return isinstance(size, int) and size == number
