"""What need not be computed for every image is folded: constants, biases, batch norms, borders."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

aten = torch.ops.aten
Tensors = dict[str, Tensor]

FREE = "torchfbi_input_"
"""How the names of buffers begin that an exported explainer takes as inputs: never folded."""


def add_tensor(graph: fx.Graph, tensors: Tensors, name: str, value: Tensor) -> fx.Node:
    """A new ``get_attr`` node, at the graph's current insertion point."""
    tensors[name] = value
    node = graph.create_node("get_attr", name)
    node.meta["val"] = value
    return node


def fold_constants(graph: fx.Graph, tensors: Tensors) -> None:
    """Compute once what does not depend on the image (weight standardisation, layer scales)."""
    several = dict[fx.Node, Any]()  # what operators of several outputs return
    for node in list(graph.nodes):
        inputs = node.all_input_nodes
        if node.op != "call_function" or any(
            (source.op != "get_attr" and source not in several) or is_free(source)
            for source in inputs
        ):
            continue
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs),
            lambda source: several[source] if source in several else tensors[str(source.target)],
        )
        # A view would ask for the layout that its tensor had before its copy was dropped.
        run: Any = aten.reshape.default if node.target in _VIEWS else node.target
        value = run(*args, **kwargs)
        if isinstance(value, tuple | list):
            several[node] = value
            continue
        with graph.inserting_before(node):
            if isinstance(value, Tensor):
                folded: Any = add_tensor(graph, tensors, node.name, _laid_out(value))
                names = [source.meta.get("layer") for source in inputs]
                named = " + ".join(dict.fromkeys(name for name in names if name))
                folded.meta["layer"] = named or node.meta.get("layer")
                node.replace_all_uses_with(folded)
            else:  # a number out of a parameter
                for user in list(node.users):
                    _replace_by_number(user, node, value)
        graph.erase_node(node)
    for node in reversed(several):
        graph.erase_node(node)


_VIEWS = {aten.view.default, aten._unsafe_view.default}


def is_free(node: fx.Node) -> bool:
    """Whether it is an input of an exported explainer."""
    return str(node.meta.get("layer", "")).startswith(FREE)


def _replace_by_number(user: fx.Node, node: fx.Node, value: Any) -> None:
    def other(argument: fx.Node) -> Any:
        return value if argument is node else argument

    user.args, user.kwargs = fx.node.map_arg((user.args, user.kwargs), other)


def _laid_out(value: Tensor) -> Tensor:
    """Keras' kernels are views of (H, W, I, O), which every convolution would copy first."""
    formats = (torch.contiguous_format, torch.channels_last)
    if value.ndim != 4 or any(value.is_contiguous(memory_format=f) for f in formats):
        return value
    return value.contiguous(memory_format=torch.channels_last)


def fold_padding(graph: fx.Graph, tensors: Tensors) -> None:
    """Make zeros that are put around a convolution's input the convolution's own padding.

    Padding is as wide on either side. Where the border is one wider on one, as TensorFlow pads, the
    filters get a row of zeros that falls on the zero too many; if each of them sees only a few
    maps, so that this costs less than the copy.
    """
    for node in list(graph.nodes):
        if node.target is not aten.convolution.default or node.args[6]:
            continue
        x, w, bias, stride, padding, *rest = node.args
        border = _border(x, len(padding))
        if border is None:
            continue
        rows = [before - after for before, after in border]
        if any(rows):
            dense = w.op != "get_attr" or tensors[w.target].shape[1] > _FEW_MAPS
            if dense or max(map(abs, rows)) > 1 or any(step > 1 for step in rest[0]):
                continue
            with graph.inserting_before(node):
                w = add_tensor(
                    graph, tensors, f"{node.name}_filters", _grown(tensors[w.target], rows)
                )
        padding = [own + max(more) for own, more in zip(padding, border, strict=True)]
        node.args = (x.args[0], w, bias, stride, padding, *rest)


_FEW_MAPS = 4
"""Image networks' first layers and depthwise ones have no more."""


def _grown(filters: Tensor, rows: list[int]) -> Tensor:
    """With a row of zeros at the end of each axis where ``rows`` is 1, at its start where -1."""
    widths = [width for row in reversed(rows) for width in (int(row < 0), int(row > 0))]
    return F.pad(filters, widths)


def _border(node: Any, axes: int) -> list[tuple[int, int]] | None:
    """How many zeros it puts before and after each of the last axes, if that is all it does."""
    if node.target is not aten.constant_pad_nd.default:
        return None
    widths, *value = node.args[1:]
    if not all(isinstance(width, int) for width in widths):
        return None  # they depend on the batch
    pairs = list(zip(widths[::2], widths[1::2], strict=True))  # from the last axis on
    if value not in ([], [0]) or min(widths) < 0 or any(map(any, pairs[axes:])):
        return None
    return (pairs[:axes] + [(0, 0)] * (axes - len(pairs)))[::-1]


def fold_affine(graph: fx.Graph, tensors: Tensors) -> None:
    """Fold into a convolution or dense layer what alone follows it and is affine in each map.

    That is a batch norm, or the arithmetic in which Keras spells out biases and batch norms, with
    permutations between: g (W x + b) + c = (g W) x + (g b + c). It is computed in float64, so
    that half-precision models lose nothing.
    """
    for layer in list(graph.nodes):
        is_conv = layer.target is aten.convolution.default
        if not is_conv and layer.target is not aten.linear.default:
            continue
        if (is_conv and layer.args[6]) or layer.args[1].op != "get_attr":
            continue  # transposed, or with a weight that depends on the image
        steps = _take_affine_users(graph, layer, 1 if is_conv else -1, tensors)
        if not steps:
            continue
        x, w, b, *rest = layer.args
        weight = tensors[w.target]
        gain = weight.new_ones(weight.shape[0], dtype=torch.float64)
        shift = gain * 0 if b is None else tensors[b.target].double()
        for factor, summand in steps:
            gain, shift = gain * factor, shift * factor + summand
        with graph.inserting_before(layer):
            if (gain != 1).any():
                scaled = weight.double() * gain.reshape(-1, *([1] * (weight.ndim - 1)))
                w = add_tensor(graph, tensors, f"{layer.name}_weight", scaled.to(weight.dtype))
            b = add_tensor(graph, tensors, f"{layer.name}_bias", shift.to(weight.dtype))
        layer.args = (x, w, b, *rest)


Affine = tuple[Tensor | float, Tensor | float]
"""A factor and a summand for each map."""


def _take_affine_users(
    graph: fx.Graph, layer: fx.Node, channel: int, tensors: Tensors
) -> list[Affine]:
    """Remove the affine operators that follow the layer one by one, and return what they did.

    Args:
        channel: the dimension of the layer's output that counts the maps.
    """
    steps: list[Affine] = []
    node, channel = layer, channel % layer.meta["val"].ndim
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user.target is aten.permute.default:
            dims: Any = user.args[1]
            node, channel = user, [dim % len(dims) for dim in dims].index(channel)
        elif (step := _as_affine(user, node, channel, tensors)) is not None:
            steps.append(step)
            user.replace_all_uses_with(node)
            graph.erase_node(user)
        else:
            break
    return steps


def _as_affine(user: fx.Node, node: fx.Node, channel: int, tensors: Tensors) -> Affine | None:
    """What ``user`` does to ``node``, if that is affine in each map with fixed numbers."""

    def vector(argument: Any) -> Tensor | None:
        """One number a map, or None if it is something else."""
        if not isinstance(argument, fx.Node) or argument.op != "get_attr":
            return None
        value, ndim = tensors[str(argument.target)], node.meta["val"].ndim
        full = [1] * (ndim - value.ndim) + list(value.shape)
        others = full[:channel] + full[channel + 1 :]
        if len(full) != ndim or others != [1] * (ndim - 1):
            return None
        return value.double().flatten()

    if user.target is aten.batch_norm.default:
        return _batch_norm(user, channel, tensors)
    if user.target not in _ARITHMETIC or user.kwargs or len(user.args) != 2:
        return None
    if user.meta["val"].dtype != node.meta["val"].dtype:
        return None
    x, y = user.args
    constant = vector(y if x is node else x)
    if constant is None:
        return None
    if user.target is aten.div.Tensor:
        return (1 / constant, 0.0) if x is node else None
    if user.target is aten.mul.Tensor:
        return constant, 0.0
    if user.target is aten.sub.Tensor:
        return (1.0, -constant) if x is node else (-1.0, constant)
    return 1.0, constant


_ARITHMETIC = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def _batch_norm(node: fx.Node, channel: int, tensors: Tensors) -> Affine | None:
    """gamma / sqrt(var + eps) and beta - mean gamma / sqrt(var + eps)."""
    if node.args[5] or channel != 1:
        return None  # by the batch's own statistics, or over a dense layer's positions
    eps: Any = node.args[7]
    gamma, beta, mean, var = (
        None if argument is None else tensors[str(argument.target)].double()  # type: ignore[union-attr]
        for argument in node.args[1:5]
    )
    assert mean is not None
    assert var is not None
    gain = torch.rsqrt(var + eps) if gamma is None else torch.rsqrt(var + eps) * gamma
    return gain, (0.0 if beta is None else beta) - mean * gain
