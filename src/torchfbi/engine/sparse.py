"""Adjoints over what was kept alone: of a convolution, and of a dense layer.

Selection leaves most maps zero, and a map that is zero adds nothing: over half of the maps a
transposed convolution costs half. Samples that have kept nearly the same maps, as targets of one
image do, go together, others one by one. A dense layer's adjoint for one image costs the reading
of its weights, so it reads the rows it needs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from torchfbi.engine.transposed import spaced, transposed_convolution
from torchfbi.system.layout import onednn_takes

Kept = list[tuple[slice, Tensor]]
"""Samples, and the numbers of the maps that count in them, (kept,) int64."""


def kept_maps(maps: Tensor | None, s: Tensor, weight: Tensor, groups: int) -> Kept | None:
    """The kept maps of all samples or of each, or None where to leave out others does not pay.

    Args:
        maps: the others are known to be zero, (N, O) bool; None where nothing is known.
        s: the signal, (N, O, ...).
        weight: (O, I, ...).
        groups: of the convolution.
    """
    if maps is None or s.device.type != "cpu":
        return None  # how many are kept depends on the data, and a GPU would have to wait for it
    if groups > 1:
        return None
    shape = "matrix" if weight[0, 0].numel() == 1 else "window"
    if shape == "matrix" and s.itemsize < 4 and onednn_takes(s):
        return None  # the product itself takes no longer than gathering then
    multiplications, least, most = _WORTH[shape]
    positions = s.shape[2:].numel()
    if weight[0].numel() < multiplications or len(s) * positions < least:
        return None
    each = [row.nonzero().flatten() for row in maps]
    mean = sum(map(len, each)) / len(each)
    if mean > _MOST * maps.shape[1]:
        return None
    if len(each) == 1:
        return [(slice(None), each[0])]
    together = maps.any(0).nonzero().flatten()
    if len(together) <= _SHARED * mean and positions <= most:
        return [(slice(None), together)]
    if positions < least:
        return None  # for one sample alone
    return [(slice(i, i + 1), numbers) for i, numbers in enumerate(each)]


_WORTH = {"matrix": (64, 49, math.inf), "window": (24, 100, 2**12)}
"""The multiplications for each entry of the signal, and the positions, below which gathering
costs more: that of the signal and that of the weights, which windows need in another order too.
And the positions above which samples go one by one, as their memory leaves the caches."""
_MOST = 0.75
"""The share of the maps above which all are taken."""
_SHARED = 1.25
"""How many times the maps of one sample those of all may be, to be worked on together."""


def over_kept_maps(
    s: Tensor,
    weight: Tensor,
    window: tuple[list[int], list[int], list[int], list[int]],
    kept: Kept,
    out: Tensor | None = None,
) -> Tensor:
    """``transposed_convolution`` over the kept maps.

    Args:
        window: its stride, padding, dilation and leftover.
        out: where the result may be written, the signal's own memory as well: a sample is read
            before it is written.
    """
    for samples, maps in kept:
        part = transposed_convolution(
            _of_maps(s[samples], 1, maps), _of_maps(weight, 0, maps), *window, groups=1
        )
        if len(kept) == 1:
            return part
        if out is None:  # at once, instead of keeping all parts until they are put together
            out = s.new_empty(len(s), *part.movedim(1, -1).shape[1:]).movedim(-1, 1)
        out[samples] = part
    assert out is not None
    return out


def _of_maps(tensor: Tensor, dim: int, maps: Tensor) -> Tensor:
    """The signal or the weights of some maps, in the layout that convolutions like."""
    innermost = tensor.movedim(1, -1)
    if dim == 0:
        return innermost.index_select(0, maps).movedim(-1, 1)
    rows = _columns(innermost, maps)
    return rows.reshape(*innermost.shape[:-1], len(maps)).movedim(-1, 1)


def pointwise(
    s: Tensor, weight: Tensor, stride: list[int], sizes: torch.Size, kept: Kept | None
) -> Tensor:
    """The adjoint of a convolution that has the same matrix at each position: one product.

    Args:
        s: the signal, (N, O, ...).
        weight: (O, I, 1, ...).
        stride: of the convolution: the positions between get zeros.
        sizes: of the convolution's input.
        kept: what ``kept_maps`` found.

    Returns:
        A tensor (N, I, *sizes).
    """
    rows, matrix = s.movedim(1, -1), weight.flatten(1)
    if kept is None:
        back = _product(rows.flatten(0, -2), matrix)
    elif len(kept) == 1:
        maps = kept[0][1]
        back = _product(_columns(rows, maps), matrix.index_select(0, maps))
    else:
        back = s.new_empty(len(s), rows.shape[1:-1].numel(), len(matrix[0]))
        for samples, maps in kept:
            back[samples] = _product(_columns(rows[samples], maps), matrix.index_select(0, maps))
    back = back.reshape(*rows.shape[:-1], -1)
    if back.shape[1:-1] != sizes:
        back = spaced(back, stride, sizes)
    return back.movedim(-1, 1)


def _columns(rows: Tensor, maps: Tensor) -> Tensor:
    flat = rows.flatten(0, -2)
    return flat.gather(1, maps.expand(len(flat), -1))  # index_select takes longer


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """A matrix product by oneDNN where it can, which uses all of a processor's instructions; the
    library behind ``torch.mm`` leaves half of them out on some makes."""
    if not onednn_takes(rows):
        return rows @ matrix
    back: Tensor = torch.ops.mkldnn._linear_pointwise(rows, matrix.t(), None, "none", [], "")
    return back


def dense(s: Tensor, weight: Tensor) -> Tensor | None:
    """The adjoint of a large dense layer for one image, from the rows of the weights whose entry
    of the signal is not zero.

    Args:
        s: the signal, (1, O).
        weight: (O, I).

    Returns:
        A tensor (1, I), or None where to read all rows is as quick.
    """
    if s.device.type != "cpu" or s.dtype != torch.float32:
        return None
    if s.ndim != 2 or len(s) > 1 or weight.numel() < _LARGE or not weight.is_contiguous():
        return None
    rows = s[0].nonzero().flatten()
    if not 0 < len(rows) <= _MOST * len(weight):
        return None
    # Each part of the columns is a bag of its own: threads share bags, not rows.
    parts = math.gcd(weight.shape[1], _PARTS)
    bags = rows * parts + torch.arange(parts)[:, None]
    table, factors = weight.reshape(len(weight) * parts, -1), s[0, rows].expand(parts, -1)
    return embedding_bag(bags, table, mode="sum", per_sample_weights=factors).reshape(1, -1)


_LARGE = 2**20
"""Weights below which reading all of them is as quick."""
_PARTS = 32
"""Bags at most: enough for as many threads."""
