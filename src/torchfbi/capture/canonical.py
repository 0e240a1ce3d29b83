"""One spelling for one operation, so that the table of adjoints stays small."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.capture import composites
from torchfbi.capture.calls import call_after, call_before

aten = torch.ops.aten


def spell_out(graph: fx.Graph) -> None:
    """One spelling for one operation: canonical overloads with all arguments in full."""
    for node in list(graph.nodes):
        if node.op != "call_function" or not hasattr(node.target, "_schema"):
            continue
        _fill_defaults(node)
        if change := _SPELLINGS.get(node.target):
            change(node)
        if node.target in _NUMBER_FIRST and not _is_tensor(node.args[0]):
            _tensor_first(node)
    graph.lint()


def _is_tensor(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and isinstance(argument.meta.get("val"), Tensor)


_NUMBER_FIRST = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def _tensor_first(node: fx.Node) -> None:
    """``torch.sub(1.0, x)``: the adjoints' first argument is a tensor."""
    number, x = node.args
    alpha = node.kwargs.get("alpha", 1)
    if node.target is aten.sub.Tensor:
        node.target, node.args = aten.rsub.Scalar, (x, number, alpha)
    elif node.target is aten.div.Tensor:
        inverse = call_before(node, aten.reciprocal.default, x)
        node.target, node.args = aten.mul.Tensor, (inverse, number)
    else:
        x = x if alpha == 1 else call_before(node, aten.mul.Tensor, x, alpha)
        node.args = (x, number)
    node.kwargs = {}


def _fill_defaults(node: fx.Node) -> None:
    """All positional arguments of the schema become positional, defaults included."""
    args, kwargs = list(node.args), dict(node.kwargs)
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.kwarg_only:
            if argument.name in kwargs and kwargs[argument.name] == argument.default_value:
                del kwargs[argument.name]
        elif i >= len(args):
            args.append(kwargs.pop(argument.name, argument.default_value))
    node.args, node.kwargs = tuple(args), kwargs


def _spell(target: Any, arguments: Callable[..., tuple[Any, ...]]) -> Callable[[fx.Node], None]:
    def change(node: fx.Node) -> None:
        node.args = arguments(*node.args)
        node.target = target

    return change


def _full(sizes: Any, dims: int) -> list[int]:
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return sizes * dims if len(sizes) == 1 else sizes


def _conv(dims: int) -> Callable[[fx.Node], None]:
    def arguments(
        x: Any, w: fx.Node, b: Any, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> tuple[Any, ...]:
        dilation = _full(dilation, dims)
        if isinstance(padding, str):
            kernel = w.meta["val"].shape[2:]
            reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            total = reach if padding == "same" else [0] * dims
            if any(t % 2 for t in total):
                pads = [p for t in reversed(total) for p in (t // 2, t - t // 2)]
                x = call_after(aten.constant_pad_nd.default, x, pads, 0.0)
                total = [0] * dims
            padding = [t // 2 for t in total]
        return (x, w, b, _full(stride, dims), _full(padding, dims), dilation, False,
                [0] * dims, groups)  # fmt: skip

    return _spell(aten.convolution.default, arguments)


def _transposed_conv(dims: int) -> Callable[[fx.Node], None]:
    def arguments(
        x: Any, w: Any, b: Any, stride: Any, padding: Any, out: Any, groups: int, dilation: Any
    ) -> tuple[Any, ...]:
        full = (_full(sizes, dims) for sizes in (stride, padding, dilation))
        return (x, w, b, *full, True, _full(out, dims), groups)

    return _spell(aten.convolution.default, arguments)


def _max_pool(target: Any, dims: int) -> Callable[[fx.Node], None]:
    def arguments(
        x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> tuple[Any, ...]:
        full = (_full(sizes, dims) for sizes in (kernel, stride or kernel, padding, dilation))
        return (x, *full, ceil_mode)

    return _spell(target, arguments)


def _avg_pool(dims: int) -> Callable[[fx.Node], None]:
    def change(node: fx.Node) -> None:
        x, kernel, stride, padding, *rest = node.args
        kernel, stride, padding = (
            _full(sizes, dims) for sizes in (kernel, stride or kernel, padding)
        )
        # An axis's only window may reach far beyond the map, in which case the adjoint, which lays
        # windows out, would need memory for all that lies beyond.
        for axis in range(dims):
            size, out = (n.meta["val"].shape[axis - dims] for n in (x, node))  # type: ignore[union-attr]
            if str(out) == "1" and isinstance(size, int) and not padding[axis]:
                kernel[axis] = min(kernel[axis], size)
        node.args = (x, kernel, stride, padding, *rest)

    return change


def _addmm(node: fx.Node) -> None:
    if not node.kwargs:  # beta and alpha are 1
        bias, x, weight = node.all_input_nodes
        node.target = aten.linear.default
        node.args = (x, call_after(aten.permute.default, weight, [1, 0]), bias)


def _matmul(node: fx.Node) -> None:
    """x W with a fixed matrix W is a dense layer; a product of two activations stays one."""
    if node.target is aten.linalg_matmul.default:
        node.target = aten.matmul.default
    x, weight = (argument for argument in node.args if isinstance(argument, fx.Node))
    if weight.op == "get_attr" and weight.meta["val"].ndim == 2:
        node.target = aten.linear.default
        node.args = (x, call_after(aten.permute.default, weight, [1, 0]), None)


def _fused_attention(node: fx.Node) -> None:
    """The kernels that PyTorch chooses for an attention return more than its values."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    mask = given.get("attn_mask", given.get("attn_bias"))
    tensors = (given["query"], given["key"], given["value"], mask)
    with node.graph.inserting_before(node):
        whole = node.graph.call_function(
            aten.scaled_dot_product_attention.default,
            (*tensors, 0.0, given.get("is_causal", False)),
            {"scale": given["scale"]} if given.get("scale") is not None else {},
        )
    whole.meta = {**node.meta, "val": node.meta["val"][0]}
    for user in list(node.users):
        if user.args[1] == 0:
            user.replace_all_uses_with(whole)


def _addcmul(node: fx.Node) -> None:
    """x + value y z."""
    x, y, z = node.args
    node.target = aten.add.Tensor
    node.args = (x, call_before(node, aten.mul.Tensor, y, z))
    node.kwargs = {"alpha": node.kwargs["value"]} if "value" in node.kwargs else {}


def _maximum(node: fx.Node) -> None:
    """max(x, t) = relu(x - t) + t with a fixed t: the thresholded linear unit."""
    node.target = aten.maximum.default
    fixed, varying = sorted(node.all_input_nodes, key=lambda source: source.op != "get_attr")
    if fixed.op != "get_attr" or varying.op == "get_attr":
        return
    excess = call_before(node, aten.sub.Tensor, varying, fixed)
    node.target = aten.add.Tensor
    node.args = (call_before(node, aten.relu.default, excess), fixed)


def _index(node: fx.Node) -> None:
    """One fixed list of positions is a selection along its dimension."""
    indices: Any = node.args[1]
    (dim, index), *others = [(i, index) for i, index in enumerate(indices) if index is not None]
    is_list = index.op == "get_attr" and index.meta["val"].ndim == 1
    if is_list and not others and index.meta["val"].dtype in (torch.int64, torch.int32):
        x: Any = node.args[0]
        positive = call_after(aten.remainder.Scalar, index, x.meta["val"].shape[dim])
        node.target, node.args = aten.index_select.default, (x, dim, positive)


def _index_put(node: fx.Node) -> None:
    """x[mask] = number: a choice between the two."""
    x, indices, value, accumulate = node.args
    mask: Any = indices[0]  # type: ignore[index]
    if len(indices) > 1 or mask.meta["val"].dtype != torch.bool or accumulate:  # type: ignore[arg-type]
        return
    if value.meta["val"].ndim == 0:  # type: ignore[union-attr]
        for dim in range(mask.meta["val"].ndim, x.meta["val"].ndim):  # type: ignore[union-attr]
            mask = call_before(node, aten.unsqueeze.default, mask, dim)
        value = call_before(node, aten._to_copy.default, value)
        value.kwargs = {"dtype": x.meta["val"].dtype}  # type: ignore[union-attr]
        node.target, node.args = aten.where.self, (mask, value, x)


def _fill_tensor(node: fx.Node) -> None:
    """One number everywhere."""
    x, number = node.args
    node.target = aten.add.Tensor
    node.args = (call_before(node, aten.zeros_like.default, x), number)


def _slice(node: fx.Node) -> None:
    """What lies in one of several parts that were put together is of that part alone, so that the
    others, such as a detector's coordinates beside its classes, may be what they are."""
    args: Any = node.args
    whole, dim, start, end, step = args
    while _is_all(whole):
        whole = whole.args[0]
    if _is_all(node) or whole.target is not aten.cat.default:
        return
    parts, along = whole.args
    sizes = [part.meta["val"].shape[dim] for part in parts]
    numbers = [n for n in (*sizes, start, end) if n is not None]
    other = (along - dim) % whole.meta["val"].ndim
    if other or not all(isinstance(n, int) for n in numbers):
        return
    taken, before = range(sum(sizes))[start:end], 0
    for part, size in zip(parts, sizes, strict=True):
        if taken and before <= taken[0] and taken[-1] < before + size:
            node.args = (part, dim, taken[0] - before, taken[-1] + 1 - before, step)
        before += size


def _is_all(node: Any) -> bool:
    """Whether it is a slice that takes the whole dimension."""
    if node.target is not aten.slice.Tensor:
        return False
    _, _, start, end, step = node.args
    return start in (0, None) and end in (sys.maxsize, None) and step == 1


def _squeeze(node: fx.Node) -> None:
    """The dimensions that are 1 for every batch: one image alone stays a batch."""
    x: Any = node.args[0]
    ones = [dim for dim, n in enumerate(x.meta["val"].shape) if isinstance(n, int) and n == 1]
    node.target, node.args = aten.squeeze.dims, (x, ones)


def _expand_as(node: fx.Node) -> None:
    """The batch is told by -1, or by the other tensor where it is only there."""
    x, other = node.args
    small, large = (argument.meta["val"].shape for argument in (x, other))  # type: ignore[union-attr]
    new = len(large) - len(small)
    sizes: list[Any] = [-1 if i >= new and small[i - new] == n else n for i, n in enumerate(large)]
    if isinstance(sizes[0], torch.SymInt):
        with node.graph.inserting_before(node):
            batch = node.graph.call_function(aten.sym_size.int, (other, 0))
        batch.meta = {"val": large[0]}
        sizes[0] = batch
    node.target = aten.expand.default
    node.args = (x, sizes)


def _cast(node: fx.Node) -> None:
    """Only the dtype counts: the device is where the model was when it was captured."""
    node.target = aten._to_copy.default
    node.kwargs = {"dtype": node.meta["val"].dtype}


def _pad(node: fx.Node) -> None:
    x, pads, mode, value = node.args
    if mode == "constant":
        node.target = aten.constant_pad_nd.default
        node.args = (x, pads, 0.0 if value is None else value)


_SPELLINGS: dict[Any, Callable[[fx.Node], None]] = {
    aten.conv1d.default: _conv(1),
    aten.conv1d.padding: _conv(1),
    aten.conv2d.default: _conv(2),
    aten.conv2d.padding: _conv(2),
    aten.conv3d.default: _conv(3),
    aten.conv3d.padding: _conv(3),
    aten.conv_transpose1d.default: _transposed_conv(1),
    aten.conv_transpose2d.input: _transposed_conv(2),
    aten.conv_transpose3d.input: _transposed_conv(3),
    aten.max_pool1d.default: _max_pool(aten.max_pool1d.default, 1),
    aten.max_pool2d.default: _max_pool(aten.max_pool2d.default, 2),
    aten.max_pool3d.default: _max_pool(aten.max_pool3d.default, 3),
    # The indices are found again where they are needed; the first output is all that is used.
    aten.max_pool2d_with_indices.default: _max_pool(aten.max_pool2d_with_indices.default, 2),
    aten.max_pool3d_with_indices.default: _max_pool(aten.max_pool3d_with_indices.default, 3),
    aten.avg_pool1d.default: _avg_pool(1),
    aten.avg_pool2d.default: _avg_pool(2),
    aten.avg_pool3d.default: _avg_pool(3),
    aten._adaptive_avg_pool2d.default: _spell(aten.adaptive_avg_pool2d.default, lambda *a: a),
    aten._adaptive_avg_pool3d.default: _spell(aten.adaptive_avg_pool3d.default, lambda *a: a),
    aten.relu6.default: _spell(aten.hardtanh.default, lambda x: (x, 0.0, 6.0)),
    aten.clamp_min.default: _spell(aten.clamp.default, lambda x, low: (x, low, None)),
    aten.clamp_max.default: _spell(aten.clamp.default, lambda x, high: (x, None, high)),
    aten.clamp.Tensor: composites.clamp,
    aten.clamp_min.Tensor: _spell(aten.maximum.default, lambda x, low: (x, low)),
    aten.clamp_max.Tensor: _spell(aten.minimum.default, lambda x, high: (x, high)),
    aten.lerp.Scalar: composites.lerp,
    aten.lerp.Tensor: composites.lerp,
    aten.rrelu.default: _spell(aten.leaky_relu.default, lambda x, a, b, *_: (x, (a + b) / 2)),
    aten.mul.Scalar: _spell(aten.mul.Tensor, lambda x, y: (x, y)),
    aten.div.Scalar: _spell(aten.div.Tensor, lambda x, y: (x, y)),
    aten.add.Scalar: _spell(aten.add.Tensor, lambda x, y, alpha: (x, y * alpha)),
    aten.sub.Scalar: _spell(aten.sub.Tensor, lambda x, y, alpha: (x, y * alpha)),
    aten.subtract.Tensor: _spell(aten.sub.Tensor, lambda x, y: (x, y)),
    aten.multiply.Tensor: _spell(aten.mul.Tensor, lambda x, y: (x, y)),
    aten.true_divide.Tensor: _spell(aten.div.Tensor, lambda x, y: (x, y)),
    aten.divide.Tensor: _spell(aten.div.Tensor, lambda x, y: (x, y)),
    aten.to.dtype_layout: _cast,
    aten.addcmul.default: _addcmul,
    aten.maximum.default: _maximum,
    aten.max.other: _maximum,
    aten.min.other: _spell(aten.minimum.default, lambda x, y: (x, y)),
    aten.index.Tensor: _index,
    aten.index_put.default: _index_put,
    aten.fill.Scalar: _spell(aten.full_like.default, lambda x, number: (x, number)),
    aten.fill.Tensor: _fill_tensor,
    aten.zero.default: _spell(aten.zeros_like.default, lambda x: (x,)),
    aten.broadcast_to.default: _spell(aten.expand.default, lambda x, sizes: (x, sizes)),
    aten.var_mean.dim: composites.variance_and_mean,
    aten.var_mean.correction: composites.variance_and_mean,
    aten.std_mean.dim: composites.variance_and_mean,
    aten.std_mean.correction: composites.variance_and_mean,
    aten.slice.Tensor: _slice,
    aten.squeeze.default: _squeeze,
    aten.batch_norm.default: composites.batch_norm,
    aten.var.correction: composites.variance,
    aten.std.correction: composites.variance,
    aten.square.default: _spell(aten.pow.Tensor_Scalar, lambda x: (x, 2)),
    aten.expand_as.default: _expand_as,
    aten.t.default: _spell(aten.permute.default, lambda x: (x, [1, 0])),
    aten.mT.default: _spell(aten.transpose.int, lambda x: (x, -2, -1)),
    aten.addmm.default: _addmm,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _fused_attention,
    aten._scaled_dot_product_flash_attention.default: _fused_attention,
    aten._scaled_dot_product_efficient_attention.default: _fused_attention,
    aten.mm.default: _matmul,
    aten.matmul.default: _matmul,
    aten.linalg_matmul.default: _matmul,
    aten.pad.default: _pad,
    # A view would ask for the memory layout that the model had before its copies were dropped.
    aten.view.default: _spell(aten.reshape.default, lambda x, shape: (x, shape)),
    aten._unsafe_view.default: _spell(aten.reshape.default, lambda x, shape: (x, shape)),
}


SPELLED = frozenset(_SPELLINGS)
"""Operators that ``spell_out`` replaces, or at least writes out."""
