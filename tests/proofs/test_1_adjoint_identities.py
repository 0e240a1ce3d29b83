"""Proof 1: every rule is the adjoint it claims to be.

A linear operator's rule is its transpose: <A(x) - A(0), y> = <x, A^T y>. The others are linear
once something is held: the gate of an activation or a product, the statistics of a norm, the
winners or shares of a maximum. Values that a rule did not ask to keep are NaN here, as they are
gone in the walk.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.capture.canonical import spell_out
from torchfbi.engine import rules
from torchfbi.engine.scratch import Scratch
from torchfbi.method.adjoints import Site, find, operators, receivers, tensor_arguments

aten = torch.ops.aten
PLAIN = Settings.plain()
ANY_MODE = (PLAIN, Settings.contrast(), Settings.paper(subtract_bias=False))


def dimensions(target: Any) -> int:
    """2 for max_pool2d and its kind."""
    return int(re.search(r"(\d)d", str(target))[1])


def each_dimension(name: str, overload: str = "default") -> list[Any]:
    """The 1-d, 2-d and 3-d variants of an operator."""
    return [getattr(getattr(aten, name.format(n)), overload) for n in (1, 2, 3)]


class Call:
    """One operator in a graph of its own. Tensors are signals, ``nn.Parameter`` are weights."""

    def __init__(self, target: Any, *args: Any, **kwargs: Any) -> None:
        graph, self.tensors, lifted = fx.Graph(), dict[fx.Node, Tensor](), dict[int, fx.Node]()

        def lift(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if id(leaf) not in lifted:
                name = f"tensor{len(lifted)}"
                kind = "get_attr" if isinstance(leaf, nn.Parameter) else "placeholder"
                node = lifted[id(leaf)] = graph.create_node(kind, name)
                self.tensors[node] = node.meta["val"] = leaf
            return lifted[id(leaf)]

        args, kwargs = torch.utils._pytree.tree_map(lift, (args, kwargs))
        self.node = graph.call_function(target, args, kwargs)
        self.output = self.node.meta["val"] = self({})
        spell_out(graph)
        self.signals = list(dict.fromkeys(receivers(self.node)))

    def __call__(self, replaced: dict[fx.Node, Tensor]) -> Tensor:
        return self.node.target(*self._arguments(replaced)[0], **self._arguments(replaced)[1])

    def _arguments(self, replaced: dict[fx.Node, Tensor]) -> Any:
        return fx.node.map_arg((self.node.args, self.node.kwargs), {**self.tensors, **replaced}.get)

    def hand_back(self, s: Tensor, settings: Settings = PLAIN) -> dict[fx.Node, Tensor]:
        """The rule's answer for each signal, with NaN for all that it did not ask to keep."""
        found = find(self.node.target)
        back = self._applied(found.rule, found.keeps, Site, s, settings)
        back = [back] if isinstance(back, Tensor) else back
        self._engine_agrees(s, settings, back[0])
        totals = dict[fx.Node, Tensor]()
        for node, signal in zip(tensor_arguments(self.node), back, strict=False):
            if signal is not None and node in self.signals:
                assert signal.shape == self.tensors[node].shape
                assert signal.dtype == self.tensors[node].dtype
                totals[node] = totals.get(node, 0) + signal
        return totals

    def _applied(self, rule: Any, reads: Any, site: Any, s: Tensor, settings: Settings) -> Any:
        """A rule's answer, with NaN for all that it does not read."""
        nothing = {n: t * math.nan for n, t in self.tensors.items() if n.op == "placeholder"}
        args, kwargs = self._arguments({} if "inputs" in reads else nothing)
        output = self.output if "output" in reads else self.output * math.nan
        return rule(s, site(output, settings, self.node), *args, **kwargs)

    def _engine_agrees(self, s: Tensor, settings: Settings, expected: Tensor) -> None:
        """The faster rule, if there is one, says the same, also over the signal's own memory."""
        faster = rules.find(self.node.target)
        if faster is None:
            return
        for overwrite in (False, True):
            site = partial(rules.Site, overwrite=overwrite, scratch=Scratch(kept=overwrite))
            own = s.clone()
            found = self._applied(faster.rule, faster.reads(settings, 0.0), site, own, settings)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            assert overwrite or torch.equal(own, s)


class Draw:
    """Hypothesis chooses sizes and a seed; the numbers come from the seed."""

    def __init__(self, data: st.DataObject) -> None:
        self._draw = data.draw
        self.dtype = self.one_of(torch.float64, torch.float32)
        self._numbers = torch.Generator().manual_seed(self.int(0, 2**32))

    def one_of(self, *choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))

    def int(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def bool(self) -> bool:
        return self._draw(st.booleans())

    def ints(self, count: int, low: int, high: int) -> list[int]:
        return [self.int(low, high) for _ in range(count)]

    def permutation(self, count: int) -> list[int]:
        return self._draw(st.permutations(range(count)))

    def dim(self, ndim: int) -> int:
        """Any dimension, also counted from the end."""
        return self.int(-ndim, ndim - 1)

    def dims(self, ndim: int) -> list[int]:
        """At least one dimension, none twice."""
        chosen = self.permutation(ndim)[: self.int(1, ndim)]
        return [d - ndim if self.bool() else d for d in chosen]

    def tensor(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._numbers, dtype=torch.float64).to(self.dtype)

    def weight(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(self.tensor(*shape), requires_grad=False)

    def maybe(self, weight: nn.Parameter) -> nn.Parameter | None:
        return weight if self.bool() else None

    def any_tensor(self) -> Tensor:
        return self.tensor(*self.ints(self.int(1, 4), 1, 4))

    def image(self, dims: int, smallest: int = 1) -> Tensor:
        return self.tensor(*self.ints(2, 1, 3), *self.ints(dims, smallest, smallest + 5))

    def broadcast(self, x: Tensor) -> list[int]:
        """A shape that broadcasts with ``x``'s and may have fewer or larger dimensions."""
        shape = [self.one_of(1, n) if n != 1 else self.int(1, 3) for n in x.shape]
        return shape[self.int(0, len(shape) - 1) :]


# --- Linear operators -------------------------------------------------------------------------

LINEAR: dict[Any, Callable[[Draw, Any], Call]] = {}


def linear(*targets: Any) -> Callable[[Any], Any]:
    """The decorated function draws a call of one of the ``targets``."""

    def register(sample: Callable[[Draw, Any], Call]) -> Callable[[Draw, Any], Call]:
        LINEAR.update(dict.fromkeys(targets, sample))
        return sample

    return register


@linear(aten.convolution.default)
def _(draw: Draw, target: Any) -> Call:
    dims, groups, transposed = draw.int(1, 3), draw.int(1, 3), draw.bool()
    ins, outs = draw.ints(2, 1, 2)
    kernel, stride, dilation = draw.ints(dims, 1, 3), draw.ints(dims, 1, 3), draw.ints(dims, 1, 2)
    padding, extra = draw.ints(dims, 0, 2), [0] * dims
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if transposed:
        sizes = draw.ints(dims, 1, 4)
        extra = [draw.int(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
        room = [(n - 1) * s + r + e for n, s, r, e in zip(sizes, stride, reach, extra, strict=True)]
        padding = [min(p, (r - 1) // 2) for p, r in zip(padding, room, strict=True)]
    else:
        sizes = [max(1, r - 2 * p) + draw.int(0, 4) for r, p in zip(reach, padding, strict=True)]
    channels = (groups * ins, outs) if transposed else (groups * outs, ins)
    x = draw.tensor(draw.int(1, 2), groups * ins, *sizes)
    weight, bias = draw.weight(*channels, *kernel), draw.maybe(draw.weight(groups * outs))
    return Call(target, x, weight, bias, stride, padding, dilation, transposed, extra, groups)


@linear(aten.linear.default)
def _(draw: Draw, target: Any) -> Call:
    x, outs = draw.any_tensor(), draw.int(1, 4)
    return Call(target, x, draw.weight(outs, x.shape[-1]), draw.maybe(draw.weight(outs)))


@linear(aten.batch_norm.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.image(draw.int(0, 3))
    gamma, beta, mean, var = (draw.weight(x.shape[1]) for _ in range(4))
    var = nn.Parameter(var.abs() + 0.1, requires_grad=False)
    gamma, beta = draw.maybe(gamma), draw.maybe(beta)
    return Call(target, x, gamma, beta, mean, var, False, 0.1, 1e-5, True)


@linear(aten.add.Tensor, aten.sub.Tensor)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    shape = draw.broadcast(x)
    y = draw.one_of(draw.tensor(*shape), draw.weight(*shape), 2.5, x)
    x, y = (y, x) if isinstance(y, Tensor) and draw.bool() else (x, y)
    return Call(target, x, y, alpha=draw.one_of(1, 0.5, -2))


@linear(aten.mul.Tensor, aten.div.Tensor)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    weight = draw.one_of(draw.weight(*draw.broadcast(x)), -0.3)
    swap = target is aten.mul.Tensor and isinstance(weight, Tensor) and draw.bool()
    return Call(target, *((weight, x) if swap else (x, weight)))


@linear(aten.rsub.Scalar)
def _(draw: Draw, target: Any) -> Call:
    return Call(target, draw.any_tensor(), 1.5, draw.one_of(1, 0.5))


@linear(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    shape = draw.broadcast(x)
    y = draw.one_of(draw.tensor, draw.weight)(*shape)
    y = {aten.where.ScalarSelf: 1.5, aten.where.ScalarOther: -0.5}.get(target, y)
    first = target is aten.where.ScalarOther or (target is aten.where.self and draw.bool())
    x, y = (x, y) if first else (y, x)
    condition = draw.tensor(*draw.one_of(shape, [1])) > 0
    return Call(target, nn.Parameter(condition, requires_grad=False), x, y)


@linear(aten.neg.default, aten.mean.default, aten.sum.default, aten.squeeze.default)
def _(draw: Draw, target: Any) -> Call:
    return Call(target, draw.any_tensor())


@linear(aten.mean.dim, aten.sum.dim_IntList)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    return Call(target, x, draw.one_of(draw.dims(x.ndim), None), draw.bool())


@linear(aten.reshape.default)
def _(draw: Draw, target: Any) -> Call:
    a, b, c = draw.ints(3, 1, 4)
    shape = draw.one_of([a, b * c], [-1, c], [c, -1, a], [a * b * c], [b, 1, c, a])
    return Call(target, draw.tensor(a, b, c), shape)


@linear(aten.flatten.using_ints)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    start = draw.int(0, x.ndim - 1)
    return Call(target, x, start, draw.int(start, x.ndim - 1) - x.ndim)


@linear(aten.unflatten.int)
def _(draw: Draw, target: Any) -> Call:
    a, b, c = draw.ints(3, 1, 4)
    return Call(target, draw.tensor(a, b * c, a), draw.one_of(1, -2), draw.one_of([b, c], [-1, c]))


@linear(aten.squeeze.dim, aten.unsqueeze.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    return Call(target, x, draw.dim(x.ndim))


@linear(aten.squeeze.dims, aten.flip.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    return Call(target, x, draw.dims(x.ndim))


@linear(aten.permute.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    dims = [d - x.ndim if draw.bool() else d for d in draw.permutation(x.ndim)]
    return Call(target, x, dims)


@linear(aten.transpose.int)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    return Call(target, x, draw.dim(x.ndim), draw.dim(x.ndim))


@linear(aten.cat.default)
def _(draw: Draw, target: Any) -> Call:
    shape = draw.ints(draw.int(1, 4), 1, 3)
    dim, parts = draw.dim(len(shape)), []
    for _ in range(draw.int(1, 3)):
        shape[dim] = draw.int(1, 3)
        parts.append(draw.one_of(draw.tensor, draw.weight)(*shape))
    return Call(target, [draw.tensor(*shape), *parts], dim)


@linear(aten.stack.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    parts = [x, *(draw.one_of(draw.tensor, draw.weight)(*x.shape) for _ in range(2)), x]
    return Call(target, parts, draw.dim(x.ndim + 1))


@linear(aten.slice.Tensor)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    dim = draw.dim(x.ndim)
    start = draw.int(0, x.shape[dim] - 1)
    end = draw.one_of(None, 2**63 - 1, draw.int(start + 1, x.shape[dim]))
    start = draw.one_of(start, start - x.shape[dim])
    return Call(target, x, dim, start, end, draw.int(1, 3))


@linear(aten.select.int)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    dim = draw.dim(x.ndim)
    return Call(target, x, dim, draw.dim(x.shape[dim]))


@linear(aten.slice_scatter.default, aten.select_scatter.default)
def _(draw: Draw, target: Any) -> Call:
    """Into a part of one tensor another is written; either may be a weight."""
    taken = aten.slice.Tensor if target is aten.slice_scatter.default else aten.select.int
    part = LINEAR[taken](draw, taken)
    x, where = next(iter(part.tensors.values())), part.node.args[1:]
    written = draw.one_of(draw.tensor, draw.weight)(*part.output.shape)
    x = nn.Parameter(x, False) if draw.bool() and not isinstance(written, nn.Parameter) else x
    return Call(target, x, written, *where)


@linear(aten.unfold.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    dim = draw.dim(x.ndim)
    return Call(target, x, dim, draw.int(1, x.shape[dim]), draw.int(1, 3))


@linear(aten.im2col.default, aten.col2im.default)
def _(draw: Draw, target: Any) -> Call:
    kernel, dilation, padding, stride = (draw.ints(2, low, 2) for low in (1, 1, 0, 1))
    window = (kernel, dilation, padding, stride)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    image = draw.tensor(*draw.ints(2, 1, 2), *(r + draw.int(0, 3) for r in reach))
    if target is aten.im2col.default:
        return Call(target, image, *window)
    columns = draw.tensor(*aten.im2col.default(image, *window).shape)
    return Call(target, columns, list(image.shape[2:]), *window)


@linear(aten.matmul.default)
def _(draw: Draw, target: Any) -> Call:
    """Fixed weights on either side, of any number of dimensions."""
    n, m, p = draw.ints(3, 1, 3)
    batch = draw.ints(draw.int(0, 2), 1, 2)
    some = [draw.one_of(1, size) for size in batch][draw.int(0, len(batch)) :]
    shapes = draw.one_of(
        ([m], [*batch, m, p]),
        ([*batch, n, m], [m]),
        ([m], [m]),
        ([*batch, n, m], [*some, m, p]),
        ([*some, n, m], [*batch, m, p]),
    )
    if draw.bool():
        return Call(target, draw.weight(*shapes[0]), draw.tensor(*shapes[1]))
    matrix = shapes[1] if len(shapes[1]) != 2 else [1, *shapes[1]]  # else it were a dense layer
    return Call(target, draw.tensor(*shapes[0]), draw.weight(*matrix))


@linear(aten.bmm.default)
def _(draw: Draw, target: Any) -> Call:
    b, n, m, p = draw.ints(4, 1, 3)
    first, second = draw.one_of((draw.tensor, draw.weight), (draw.weight, draw.tensor))
    return Call(target, first(b, n, m), second(b, m, p))


@linear(aten.einsum.default)
def _(draw: Draw, target: Any) -> Call:
    equation = draw.one_of("ij,jk->ik", "ij,jk", "...ij,...jk", "b...i, ji -> bj...", "ij,k->ki",
                           "aij,aj,ak->ki", "ij,kj->", "a...,b...->ab", "ji,i->j")  # fmt: skip
    sizes = dict(zip("abijk", draw.ints(5, 1, 3), strict=True))
    dots = draw.ints(draw.int(0, 2), 1, 2)
    operands = equation.replace(" ", "").partition("->")[0].split(",")
    shapes = [
        [n for c in o.replace("...", ".") for n in (dots if c == "." else [sizes[c]])]
        for o in operands
    ]
    signal = draw.int(0, len(operands) - 1)
    kinds = [draw.tensor if i == signal else draw.weight for i in range(len(operands))]
    return Call(target, equation, [kind(*n) for kind, n in zip(kinds, shapes, strict=True)])


@linear(aten.scaled_dot_product_attention.default)
def _(draw: Draw, target: Any) -> Call:
    """Linear in the values, whatever the queries, keys and the mask are."""
    n, queries, keys, features, depth = draw.ints(5, 1, 3)
    heads, groups = draw.int(1, 2), draw.int(1, 2)
    q = draw.weight(n, heads * groups, queries, features)
    k, v = draw.weight(n, heads, keys, features), draw.tensor(n, heads, keys, depth)
    rows = draw.one_of(1, queries)
    seen = nn.Parameter(draw.tensor(rows, keys) > -1, requires_grad=False)
    mask = draw.one_of(None, draw.weight(n, 1, rows, keys), seen)
    causal = mask is None and draw.bool()
    scale = draw.one_of(None, 0.3)
    return Call(target, q, k, v, mask, 0.0, causal, scale=scale, enable_gqa=groups > 1)


@linear(aten.copy.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    shape = [draw.one_of(1, n) for n in x.shape]
    return Call(target, x, draw.tensor(*shape[draw.int(0, x.ndim - 1) :]))


@linear(aten.index_select.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    dim = draw.dim(x.ndim)
    index = torch.tensor(draw.ints(draw.int(1, 5), 0, x.shape[dim] - 1))
    return Call(target, x, dim, nn.Parameter(index, requires_grad=False))


@linear(aten.expand.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    grown = [draw.int(1, 3) if n == 1 else draw.one_of(n, -1) for n in x.shape]
    return Call(target, x, [*draw.ints(draw.int(0, 2), 1, 3), *grown])


@linear(aten.constant_pad_nd.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.image(draw.int(1, 3), smallest=3)
    pads = draw.ints(2 * draw.int(1, x.ndim - 2), -1, 3)
    return Call(target, x, pads, draw.one_of(0.0, 1.5))


@linear(*each_dimension("reflection_pad{}d"), *each_dimension("replication_pad{}d"))
def _(draw: Draw, target: Any) -> Call:
    dims = dimensions(target)
    return Call(target, draw.image(dims, smallest=3), draw.ints(2 * dims, 0, 2))


@linear(aten.pad.default)
def _(draw: Draw, target: Any) -> Call:
    dims, mode = draw.int(1, 3), draw.one_of("reflect", "replicate", "circular")
    return Call(target, draw.image(dims, smallest=3), draw.ints(2 * dims, 0, 2), mode)


@linear(aten.roll.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    dims = draw.dims(x.ndim)
    shifts = draw.ints(len(dims), -3, 3)
    return Call(target, x, *draw.one_of((shifts, dims), (shifts[:1],)))


@linear(aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.channel_shuffle.default)
def _(draw: Draw, target: Any) -> Call:
    factor, (n, c, h, w) = draw.int(1, 3), draw.ints(4, 1, 2)
    shape = {
        aten.pixel_shuffle.default: (n, c * factor**2, h, w),
        aten.pixel_unshuffle.default: (n, c, h * factor, w * factor),
        aten.channel_shuffle.default: (n, c * factor, h, w),
    }[target]
    return Call(target, draw.tensor(*shape), factor)


@linear(aten._to_copy.default)
def _(draw: Draw, target: Any) -> Call:
    return Call(target, draw.any_tensor(), dtype=draw.one_of(torch.float32, torch.float64))


@linear(aten.to.dtype)
def _(draw: Draw, target: Any) -> Call:
    return Call(target, draw.any_tensor(), draw.one_of(torch.float32, torch.float64))


@linear(aten.to.device)
def _(draw: Draw, target: Any) -> Call:
    dtype = draw.one_of(torch.float32, torch.float64)
    return Call(target, draw.any_tensor(), torch.device("cpu"), dtype)


@linear(
    *each_dimension("upsample_nearest{}d", "vec"),
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
    aten.upsample_bicubic2d.vec,
    *each_dimension("_upsample_nearest_exact{}d", "vec"),
    aten._upsample_bilinear2d_aa.vec,
    aten._upsample_bicubic2d_aa.vec,
)
def _(draw: Draw, target: Any) -> Call:
    dims = dimensions(target)
    # Down to one column PyTorch's antialiased kernel computes something else.
    smallest, least = (4, 2) if "_aa" in str(target) else (2, 1)
    x = draw.image(dims, smallest=smallest)
    sizes = (draw.ints(dims, least, 7), None)
    scales = (None, [draw.one_of(0.5, 1.0, 1.5, 2.0, 3.0) for _ in range(dims)])
    size, scale = draw.one_of(sizes, scales)
    aligned = [] if "nearest" in str(target) else [draw.bool()]
    return Call(target, x, size, *aligned, scale)


@linear(aten.repeat.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    return Call(target, x, draw.ints(x.ndim + draw.int(0, 2), 1, 3))


@linear(aten.gather.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    dim = draw.dim(x.ndim)
    shape = list(x.shape)
    shape[dim] = draw.int(1, 4)
    count = math.prod(shape)
    index = torch.tensor(draw.ints(count, 0, x.shape[dim] - 1)).reshape(shape)
    return Call(target, x, dim, nn.Parameter(index, requires_grad=False))


@linear(aten.index_put.default)
def _(draw: Draw, target: Any) -> Call:
    """Into a list of places, or added to what is there, also twice."""
    added, a = draw.one_of((False, [2, 0, -1]), (True, [1, -1, 1]))
    places = nn.Parameter(torch.tensor(a), requires_grad=False)
    values = draw.tensor(*draw.one_of((2, 3, 2), (3, 1), (1,)))
    return Call(target, draw.tensor(2, 4, 2), [None, places], values, added)


@linear(aten.index.Tensor)
def _(draw: Draw, target: Any) -> Call:
    """Two lists, also counted from the end, at neighbouring dimensions or not; or a table."""
    x = draw.tensor(2, 3, 4, 2)
    a, b = (
        nn.Parameter(torch.tensor(draw.ints(5, -n, n - 1)), requires_grad=False) for n in (3, 4)
    )
    c = nn.Parameter(torch.tensor([[0, 1], [1, 1]]), requires_grad=False)
    return Call(target, x, draw.one_of([None, a, b], [None, a, None, b % 2], [None, None, c]))


@linear(aten.cumsum.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    return Call(target, x, draw.dim(x.ndim))


@linear(aten.diagonal.default)
def _(draw: Draw, target: Any) -> Call:
    return Call(target, draw.tensor(2, 3, 4, 5), draw.int(-1, 2), *draw.permutation(4)[:2])


@linear(aten.tril.default, aten.triu.default)
def _(draw: Draw, target: Any) -> Call:
    return Call(target, draw.tensor(2, 4, 5), draw.int(-3, 3))


@linear(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _(draw: Draw, target: Any) -> Call:
    x = draw.any_tensor()
    mask = draw.tensor(*[draw.one_of(1, n) for n in x.shape]) > 0
    filled = torch.full((), 0.5, dtype=x.dtype)
    value = 0.5 if target is aten.masked_fill.Scalar else nn.Parameter(filled, requires_grad=False)
    return Call(target, x, nn.Parameter(mask, requires_grad=False), value)


@linear(aten.unfold.default)
def _(draw: Draw, target: Any) -> Call:
    x = draw.tensor(*draw.ints(draw.int(1, 4), 3, 6))
    return Call(target, x, draw.dim(x.ndim), draw.int(1, 3), draw.int(1, 3))


@linear(aten.im2col.default, aten.col2im.default)
def _(draw: Draw, target: Any) -> Call:
    sizes, kernel = draw.ints(2, 4, 7), draw.ints(2, 1, 3)
    window = (kernel, [1, draw.int(1, 1)], draw.ints(2, 0, 1), draw.ints(2, 1, 2))
    x = draw.tensor(*draw.ints(2, 1, 2), *sizes)
    if target is aten.im2col.default:
        return Call(target, x, *window)
    columns = aten.im2col.default(x, *window)
    return Call(target, draw.tensor(*columns.shape), sizes, *window)


@linear(aten.grid_sampler_2d.default, aten.grid_sampler_3d.default)
def _(draw: Draw, target: Any) -> Call:
    dims = dimensions(target)
    x = draw.image(dims, smallest=2)
    grid = nn.Parameter(draw.tensor(len(x), *draw.ints(dims, 1, 4), dims), requires_grad=False)
    mode = draw.int(0, 2 if dims == 2 else 1)
    return Call(target, x, grid, mode, draw.int(0, 2), draw.bool())


@linear(aten.max_unpool2d.default, aten.max_unpool3d.default)
def _(draw: Draw, target: Any) -> Call:
    dims = dimensions(target)
    image = draw.image(dims, smallest=2)
    pool = F.max_pool2d if dims == 2 else F.max_pool3d
    pooled, indices = pool(image, 2, return_indices=True)
    window = () if dims == 2 else ([2] * 3, [0] * 3)
    indices = nn.Parameter(indices, requires_grad=False)
    return Call(target, torch.randn_like(pooled), indices, list(image.shape[2:]), *window)


@linear(*each_dimension("avg_pool{}d"))
def _(draw: Draw, target: Any) -> Call:
    dims = dimensions(target)
    x, kernel = draw.image(dims, smallest=3), draw.ints(dims, 1, 3)
    stride, padding = draw.ints(dims, 1, 3), [draw.int(0, k // 2) for k in kernel]
    divisor = [draw.one_of(None, 3)] if dims > 1 else []
    return Call(target, x, kernel, stride, padding, draw.bool(), draw.bool(), *divisor)


@linear(*each_dimension("adaptive_avg_pool{}d"))
def _(draw: Draw, target: Any) -> Call:
    dims = dimensions(target)
    return Call(target, draw.image(dims), draw.ints(dims, 1, 8))


@pytest.mark.parametrize("target", LINEAR, ids=str)
@given(data=st.data())
def test_proof_1_a_linear_rule_is_the_transpose(target: Any, data: st.DataObject) -> None:
    draw = Draw(data)
    call = LINEAR[target](draw, target)
    x = {node: call.tensors[node] for node in call.signals}
    zero = {node: torch.zeros_like(value) for node, value in x.items()}
    Ax, y = call(x).double() - call(zero).double(), torch.randn_like(call.output)
    back = call.hand_back(y, draw.one_of(*ANY_MODE))
    there = (Ax * y).sum()
    here = sum((value.double() * back[node]).sum() for node, value in x.items())
    size = (Ax * y).abs().sum() + sum((v.double() * back[n]).abs().sum() for n, v in x.items())
    tolerance = 1e-9 if {call.output.dtype, draw.dtype} == {torch.float64} else 1e-4
    assert abs(there - here) <= tolerance * (1 + size)


@given(data=st.data())
def test_proof_1_a_dense_layer_of_the_paper_subtracts_its_bias(data: st.DataObject) -> None:
    draw = Draw(data)
    W, b = draw.weight(3, 2), draw.weight(3)
    call = Call(aten.linear.default, draw.tensor(4, 2), W, b)
    s = torch.randn_like(call.output)
    (back,) = call.hand_back(s, Settings.paper()).values()
    torch.testing.assert_close(back, torch.einsum("oi,no->ni", W, s - b))


CONSTANTS: dict[Any, tuple[Any, ...]] = {
    aten.zeros_like.default: (),
    aten.ones_like.default: (),
    aten.full_like.default: (2.5,),
    aten.new_zeros.default: ([2, 3],),
    aten.new_ones.default: ([2, 3],),
    aten.new_full.default: ([2, 3], 2.5),
}


@pytest.mark.parametrize("target", CONSTANTS, ids=str)
def test_proof_1_a_constant_hands_nothing_back(target: Any) -> None:
    """It takes the shape of its input or less, so that its transpose is zero."""
    calls = [Call(target, torch.randn(4, 5), *CONSTANTS[target]) for _ in range(2)]
    assert torch.equal(calls[0].output, calls[1].output)
    assert calls[0].signals == []


# --- Activations ------------------------------------------------------------------------------

WEIGHTS = nn.Parameter(torch.tensor([0.25, -0.5, 1.5], dtype=torch.float64), requires_grad=False)
ACTIVATIONS: dict[Any, list[tuple[Any, ...]]] = {
    aten.relu.default: [()],
    aten.clamp.default: [(0.0, 6.0), (None, 1.5), (-1.0, None), (0.5, 2.0), (-3.0, -0.5)],
    aten.hardtanh.default: [(), (0.0, 6.0), (-2.0, 0.5)],
    aten.leaky_relu.default: [(), (0.2,)],
    aten.prelu.default: [(WEIGHTS,), (WEIGHTS[:1],)],
    aten.elu.default: [(), (0.7, 1.2, 0.9)],
    aten.selu.default: [()],
    aten.celu.default: [(), (0.5,)],
    aten.silu.default: [()],
    aten.gelu.default: [(), {"approximate": "tanh"}],
    aten.hardswish.default: [()],
    aten.hardsigmoid.default: [()],
    aten.pow.Tensor_Scalar: [(1,), (2,), (3,)],
    aten.sigmoid.default: [()],
    aten.tanh.default: [()],
    aten.softplus.default: [(), (2.0, 3.0)],
    aten.mish.default: [()],
    aten.abs.default: [()],
    aten.exp.default: [()],
    aten.exp2.default: [()],
    aten.expm1.default: [()],
    aten.sin.default: [()],
    aten.cos.default: [()],
    aten.tan.default: [()],
    aten.sinh.default: [()],
    aten.cosh.default: [()],
    aten.asinh.default: [()],
    aten.atan.default: [()],
    aten.erf.default: [()],
    aten.erfc.default: [()],
    aten.log_sigmoid.default: [()],
    aten.softshrink.default: [(), (0.7,)],
    aten.hardshrink.default: [(), (0.7,)],
    aten.threshold.default: [(0.0, 0.0), (0.1, 0.2), (-0.3, -1.0)],
}
CASES = [(target, arguments) for target, cases in ACTIVATIONS.items() for arguments in cases]


def activation(target: Any, arguments: Any) -> tuple[Call, Tensor]:
    """A call at the kinks of every function, close to zero and at random points."""
    grid = torch.arange(-8, 8.25, 0.25, dtype=torch.float64)
    near = torch.tensor([1e-300, 1e-12, 1e-7, 1e-5, 9e-4, 2e-3], dtype=torch.float64)
    x = torch.cat([grid, near, -near, 4 * torch.randn(99, dtype=torch.float64)])
    x = x.expand(1, 3, -1).clone()
    if isinstance(arguments, dict):
        return Call(target, x, **arguments), x
    return Call(target, x, *arguments), x


@pytest.mark.parametrize(("target", "arguments"), CASES, ids=str)
def test_proof_1_a_held_gate_gives_the_function_back(target: Any, arguments: Any) -> None:
    """f(x) = f(0) + x g(x)."""
    call, x = activation(target, arguments)
    (g,) = call.hand_back(torch.ones_like(x), Settings(gates="held")).values()
    at_zero = call({call.signals[0]: torch.zeros_like(x)})
    torch.testing.assert_close(at_zero + x * g, call.output, rtol=1e-12, atol=1e-12)
    assert g.isfinite().all()


@pytest.mark.parametrize(("target", "arguments"), CASES, ids=str)
def test_proof_1_a_held_gate_is_continuous_at_zero(target: Any, arguments: Any) -> None:
    """Where f is smooth at 0 the secants end in its slope, without cancellation on the way."""
    call, x = activation(target, arguments)
    (g,) = call.hand_back(torch.ones_like(x), Settings(gates="held")).values()
    (slope,) = call.hand_back(torch.ones_like(x), PLAIN).values()
    near = (x.abs() <= 1e-3) & (x != 0)
    torch.testing.assert_close(g[near], slope[near], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("target", "arguments"), CASES, ids=str)
def test_proof_1_the_derivative_is_autograds_also_at_kinks(target: Any, arguments: Any) -> None:
    call, x = activation(target, arguments)
    s = torch.randn_like(x)
    (back,) = call.hand_back(s, PLAIN).values()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(call({call.signals[0]: leaf}), leaf, s)
    # PyTorch's own derivative of hardsigmoid multiplies by a sixth in float32.
    torch.testing.assert_close(back, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("target", "arguments"), CASES, ids=str)
def test_proof_1_the_papers_adjoint_of_an_activation_is_relu(target: Any, arguments: Any) -> None:
    call, x = activation(target, arguments)
    s = torch.randn_like(x)
    (back,) = call.hand_back(s, Settings.paper()).values()
    assert torch.equal(back, s.clamp(min=0))


EXPONENTS = nn.Parameter(torch.tensor([[0.5], [3.0], [1.0]], dtype=torch.float64), False)
PARTIAL: dict[Any, list[tuple[tuple[Any, ...], float, float, float]]] = {
    aten.log.default: [((), 1.0, 0.01, 9.0)],
    aten.log2.default: [((), 1.0, 0.01, 9.0)],
    aten.log10.default: [((), 1.0, 0.01, 9.0)],
    aten.log1p.default: [((), 0.0, -0.9, 9.0)],
    aten.reciprocal.default: [((), 1.0, 0.01, 9.0)],
    aten.rsqrt.default: [((), 1.0, 0.01, 9.0)],
    aten.sqrt.default: [((), 0.0, 0.01, 9.0)],
    aten.pow.Tensor_Scalar: [((0.5,), 0.0, 0.01, 9.0), ((-1.5,), 1.0, 0.01, 9.0)],
    aten.pow.Tensor_Tensor: [((EXPONENTS,), 0.0, 0.01, 9.0), ((-EXPONENTS,), 1.0, 0.01, 9.0)],
    aten.asin.default: [((), 0.0, -0.95, 0.95)],
    aten.acos.default: [((), 0.0, -0.95, 0.95)],
    aten.atanh.default: [((), 0.0, -0.95, 0.95)],
    aten.logit.default: [((), 0.5, 0.02, 0.98), ((0.1,), 0.5, 0.02, 0.98)],
}
"""Functions that are not defined everywhere: arguments, the origin of the secant, and a range."""


@pytest.mark.parametrize(
    ("target", "case"), [(target, case) for target in PARTIAL for case in PARTIAL[target]], ids=str
)
def test_proof_1_a_function_that_is_not_defined_everywhere(target: Any, case: Any) -> None:
    """f(x) = f(o) + (x - o) g(x) with the gate held, and f' is autograd's."""
    arguments, origin, low, high = case
    near = origin + torch.tensor([-1e-4, -1e-6, 1e-9, 1e-6, 1e-4], dtype=torch.float64)
    x = torch.cat([torch.linspace(low, high, 120, dtype=torch.float64), near[near > low]])
    x = x.expand(1, 3, -1).clone()
    fixed = [nn.Parameter(a, False) if isinstance(a, Tensor) else a for a in arguments]
    call = Call(target, x, *fixed)
    (g,) = call.hand_back(torch.ones_like(x), Settings(gates="held")).values()
    start = call({call.signals[0]: torch.full_like(x, origin)})
    torch.testing.assert_close(start + (x - origin) * g, call.output, rtol=1e-11, atol=1e-11)
    s, leaf = torch.randn_like(x), x.clone().requires_grad_()
    (back,) = call.hand_back(s, PLAIN).values()
    (expected,) = torch.autograd.grad(call({call.signals[0]: leaf}), leaf, s)
    torch.testing.assert_close(back, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("target", [aten.sqrt.default, aten.pow.Tensor_Scalar], ids=str)
@pytest.mark.parametrize("gates", ["held", "derivative"])
def test_proof_1_a_root_is_zero_at_zero_where_its_slope_is_infinite(
    target: Any, gates: Any
) -> None:
    x = torch.tensor([[[0.0, 4.0]]], dtype=torch.float64)
    call = Call(target, x, *([0.5] if target is aten.pow.Tensor_Scalar else []))
    (back,) = call.hand_back(torch.ones_like(x), Settings(gates=gates)).values()
    assert back.flatten().tolist() == [0.0, 0.5 if gates == "held" else 0.25]


# --- Normalisation with held statistics -------------------------------------------------------

NORMS = [
    aten.layer_norm.default,
    aten.rms_norm.default,
    aten.group_norm.default,
    aten.instance_norm.default,
]


@pytest.mark.parametrize("target", NORMS, ids=str)
@given(data=st.data())
def test_proof_1_a_norm_is_linear_with_its_statistics_held(
    target: Any, data: st.DataObject
) -> None:
    draw = Draw(data)
    groups, eps = draw.int(1, 2), draw.one_of(1e-5, 0.3)
    x = draw.tensor(draw.int(1, 3), 2 * groups, *draw.ints(draw.int(1, 3), 2, 4))
    per_map = [1, -1, *[1] * (x.ndim - 2)]
    if target in (aten.layer_norm.default, aten.rms_norm.default):
        dims = tuple(range(-draw.int(1, x.ndim - 1), 0))
        shape = [x.shape[d] for d in dims]
        gamma, beta = (draw.maybe(draw.weight(*shape)) for _ in range(2))
        if target is aten.rms_norm.default:
            beta, eps = None, draw.one_of(eps, None)
        affine = (gamma, eps) if target is aten.rms_norm.default else (gamma, beta, eps)
        call, grouped, per_map = Call(target, x, shape, *affine), x, shape
    else:
        gamma, beta = (draw.maybe(draw.weight(x.shape[1])) for _ in range(2))
        if target is aten.group_norm.default:
            call = Call(target, x, groups, gamma, beta, eps)
            grouped, dims = x.unflatten(1, (groups, -1)), tuple(range(2, x.ndim + 1))
        else:
            call = Call(target, x, gamma, beta, None, None, True, 0.1, eps, False)
            grouped, dims = x, tuple(range(2, x.ndim))
    leaf = x.clone().requires_grad_()
    mean = leaf.reshape(grouped.shape).mean(dims, keepdim=True)  # linear, so it is kept
    var = grouped.var(dims, correction=0, keepdim=True)
    if target is aten.rms_norm.default:
        mean, var = torch.zeros(()), grouped.square().mean(dims, keepdim=True)
        eps = torch.finfo(x.dtype).eps if eps is None else eps
    held = ((leaf.reshape(grouped.shape) - mean) / torch.sqrt(var + eps)).reshape(x.shape)
    held = held if gamma is None else held * gamma.reshape(per_map)
    offset = 0 if beta is None else beta.reshape(per_map)
    torch.testing.assert_close(held.detach() + offset, call.output, rtol=1e-4, atol=1e-4)
    s = torch.randn_like(x)
    (back,) = call.hand_back(s).values()
    (expected,) = torch.autograd.grad(held, leaf, s)
    torch.testing.assert_close(back, expected, rtol=1e-4, atol=1e-4)


# --- Maxima -----------------------------------------------------------------------------------

MAX_POOLS = each_dimension("max_pool{}d")


def max_pool(draw: Draw, target: Any) -> tuple[Call, Tensor, Tensor]:
    """A call, its input, and which entry lies in which window, (entries, windows) of 0 and 1."""
    dims = dimensions(target)
    x = draw.image(dims, smallest=5).round(decimals=1)
    kernel = draw.ints(dims, 1, 3)
    stride = draw.one_of(kernel, draw.ints(dims, 1, 3))
    padding, dilation = [draw.int(0, k // 2) for k in kernel], draw.ints(dims, 1, 2)
    call = Call(target, x, kernel, stride, padding, dilation, draw.bool())
    entries = x[0, 0].numel()
    units = torch.eye(entries, dtype=x.dtype).reshape(entries, 1, *x.shape[2:])
    return call, x, call({call.signals[0]: units}).flatten(1)


@pytest.mark.parametrize("target", MAX_POOLS, ids=str)
@given(data=st.data())
def test_proof_1_the_winner_takes_what_autograd_gives_it(target: Any, data: st.DataObject) -> None:
    call, x, _ = max_pool(Draw(data), target)
    leaf, s = x.clone().requires_grad_(), torch.randn_like(call.output)
    (back,) = call.hand_back(s, Settings(pooling="winner")).values()
    (expected,) = torch.autograd.grad(call({call.signals[0]: leaf}), leaf, s)
    torch.testing.assert_close(back, expected)


@pytest.mark.parametrize("target", MAX_POOLS, ids=str)
@given(data=st.data())
def test_proof_1_shares_are_proportional_and_conserve_the_signal(
    target: Any, data: st.DataObject
) -> None:
    """A window hands back all its signal, or nothing if none of its entries is active."""
    call, x, windows = max_pool(Draw(data), target)
    s = torch.randn_like(call.output)
    (back,) = call.hand_back(s, Settings(pooling="proportional")).values()
    active = x.relu().flatten(2)
    total = active @ windows
    shares = torch.where(total > 0, s.flatten(2) / total, 0)
    expected = active * (shares @ windows.T)
    torch.testing.assert_close(back.flatten(2), expected, rtol=1e-4, atol=1e-5)
    conserved = torch.where(total > 0, s.flatten(2), 0).sum(2)
    torch.testing.assert_close(back.flatten(2).sum(2), conserved, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", MAX_POOLS, ids=str)
@pytest.mark.parametrize("gates", ["rectify", "held"])
@given(data=st.data())
def test_proof_1_replication_averages_overlaps_and_takes_the_minimum(
    gates: Any, target: Any, data: st.DataObject
) -> None:
    """Section 2, "Unpooling"; with both signs the minimum bounds the magnitude."""
    call, _, windows = max_pool(Draw(data), target)
    s = torch.randn_like(call.output)
    (back,) = call.hand_back(s, Settings(pooling="replicate", gates=gates)).values()
    copies = windows.sum(1).clamp(min=1)
    signal, pooled = (part.flatten(2) @ windows.T / copies for part in (s, call.output))
    expected = torch.minimum(signal, pooled)
    if gates == "held":
        expected = signal.sign() * torch.minimum(signal.abs(), pooled.relu())
    torch.testing.assert_close(back.flatten(2), expected, rtol=1e-4, atol=1e-5)


def test_proof_1_unpooling_by_hand() -> None:
    """Windows of 3 with stride 2: the pixel in the middle belongs to both and gets the mean."""
    x, s = torch.tensor([[[1.0, 4.0, 2.0, 0.0, 3.0]]]), torch.tensor([[[6.0, 2.0]]])
    call = Call(aten.max_pool1d.default, x, [3], [2], [0], [1], False)
    assert call.output.tolist() == [[[4.0, 3.0]]]

    def back(pooling: Any) -> list[float]:
        (signal,) = call.hand_back(s, Settings.paper(pooling=pooling)).values()
        return signal.flatten().tolist()

    # Copies 6 6 (6 + 2)/2 2 2, against 4 4 (4 + 3)/2 3 3.
    assert back("replicate") == [4.0, 4.0, 3.5, 2.0, 2.0]
    # Shares 1/7 4/7 2/7 of 6 and 2/5 0 3/5 of 2.
    assert back("proportional") == pytest.approx([6 / 7, 24 / 7, 12 / 7 + 4 / 5, 0, 6 / 5])
    assert back("winner") == [0.0, 6.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("target", [aten.amax.default, aten.amin.default], ids=str)
@given(data=st.data())
def test_proof_1_maxima_share_as_in_autograd(target: Any, data: st.DataObject) -> None:
    draw = Draw(data)
    x = draw.any_tensor().round()
    call = Call(target, x, draw.one_of(draw.dims(x.ndim), []), draw.bool())
    leaf, s = x.clone().requires_grad_(), torch.randn_like(call.output)
    (back,) = call.hand_back(s).values()
    (expected,) = torch.autograd.grad(call({call.signals[0]: leaf}), leaf, s)
    torch.testing.assert_close(back, expected)


OF_TWO = [aten.maximum.default, aten.minimum.default, aten.fmax.default, aten.fmin.default]


@pytest.mark.parametrize("target", OF_TWO, ids=str)
@given(data=st.data())
def test_proof_1_the_larger_of_two_gets_the_signal(target: Any, data: st.DataObject) -> None:
    draw = Draw(data)
    x = draw.any_tensor()
    call = Call(target, x, draw.tensor(*draw.broadcast(x)))
    leaves = {node: call.tensors[node].clone().requires_grad_() for node in call.signals}
    s = torch.randn_like(call.output)
    expected = torch.autograd.grad(call(leaves), list(leaves.values()), s)
    back = call.hand_back(s)
    for node, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(back[node], gradient, rtol=1e-4, atol=1e-4)


def test_proof_1_equal_ones_get_half_each() -> None:
    x, y = (torch.tensor([[1.0, 2.0]]) for _ in range(2))
    for target in OF_TWO:
        backs = Call(target, x, y).hand_back(torch.tensor([[3.0, 4.0]])).values()
        assert [back.tolist() for back in backs] == [[[1.5, 2.0]]] * 2


# --- Products ---------------------------------------------------------------------------------


class Product(nn.Module):
    """A product or quotient whose gate autograd sees as a constant once it is ``held``."""

    def __init__(self, combine: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.combine, self.held = combine, False
        self.a, self.b = (nn.Conv2d(3, 3, 1, dtype=torch.float64) for _ in range(2))

    def hold(self, gate: Tensor) -> Tensor:
        return gate.detach() if self.held else gate

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self, x).flatten(1)


def excited(net: Any, x: Tensor) -> Tensor:
    return net.a(x) * net.hold(net.b(x).mean((2, 3), keepdim=True).sigmoid())


def attended(net: Any, x: Tensor) -> Tensor:
    return net.hold(net.b(x).mean(1, keepdim=True)) * net.a(x)


def swish(net: Any, x: Tensor) -> Tensor:
    return (u := net.a(x)) * net.hold(torch.sigmoid(1.5 * u + 1))


def hard_swish(net: Any, x: Tensor) -> Tensor:
    return net.hold(F.relu6((u := net.a(x)) + 3) / 6) * u


def gated(net: Any, x: Tensor) -> Tensor:
    return net.a(x) * net.hold(torch.sigmoid(net.b(x)))


def squared(net: Any, x: Tensor) -> Tensor:
    return (u := net.a(x)) * net.hold(u)


def halves(net: Any, x: Tensor) -> Tensor:
    u, v = net.a(x), net.b(x)
    return (u * net.hold(v) + net.hold(u) * v) / 2 if net.held else u * v


def soft_sign(net: Any, x: Tensor) -> Tensor:
    return (u := net.a(x)) / net.hold(1 + u.abs())


def response_normed(net: Any, x: Tensor) -> Tensor:
    u = net.a(x)
    mean_square = F.avg_pool3d(F.pad(u * u, (0, 0, 0, 0, 1, 1))[:, None], (3, 1, 1), 1)[:, 0]
    return u / net.hold((mean_square * 0.5 + 2).pow(0.75))


def instance_normed(net: Any, x: Tensor) -> Tensor:
    u = net.a(x)
    mean_square = u.square().float().mean((2, 3), keepdim=True)
    return u * net.hold((mean_square + 0.1).rsqrt().to(u.dtype)).expand(u.shape)


PRODUCTS = [
    excited,
    attended,
    swish,
    hard_swish,
    gated,
    squared,
    halves,
    soft_sign,
    response_normed,
    instance_normed,
]


@pytest.mark.parametrize("combine", PRODUCTS)
def test_proof_1_a_product_holds_its_gate(combine: Any) -> None:
    """The walk equals the gradient of the same network with the gate detached."""
    net, x = Product(combine).eval(), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    s = torch.randn(2, 60, dtype=torch.float64)
    values, logits = ForwardBackward(net, x, PLAIN)(x, lambda _: s)
    net.held, leaf = True, x.clone().requires_grad_()
    held = net(leaf)
    torch.testing.assert_close(logits, held.detach())
    (expected,) = torch.autograd.grad(held, leaf, s)
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)


def test_proof_1_covers_every_operator() -> None:
    maxima = {*MAX_POOLS, *OF_TWO, aten.amax.default, aten.amin.default}
    proven = {*LINEAR, *CONSTANTS, *ACTIVATIONS, *PARTIAL, *NORMS, *maxima}
    assert proven == set(operators())
