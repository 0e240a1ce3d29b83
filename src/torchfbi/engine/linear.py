"""Convolutions and dense layers: packed weights, kept maps alone, products as memory lies."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

from torchfbi.engine import packed, sparse
from torchfbi.engine.excitation import excitation
from torchfbi.engine.magnitudes import Use, weights
from torchfbi.engine.rules import Site, faster
from torchfbi.engine.transposed import transposed_convolution
from torchfbi.method.adjoints.linear import convolution_adjoint
from torchfbi.method.adjoints.windows import left_over
from torchfbi.method.settings import Settings
from torchfbi.system.layout import laid_out, onednn_takes

aten = torch.ops.aten


def _all_with_gamma(settings: Settings, gamma: float) -> set[str]:
    """The plain adjoint knows nothing of the forward pass."""
    return {"inputs", "output"} if gamma else set()


@faster(aten.convolution.default, reads=_all_with_gamma)
def convolution(
    s: Tensor, at: Site, x: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any
) -> Tensor:
    """The plain adjoint or the excitation walk."""
    if not at.gamma:
        return _adjoint(s, at.overwrite, at.maps, x.shape[2:], weight, *shape)
    return excitation(s, at, x, _Convolution(weight, bias, at, x.shape[2:], shape))


class _Convolution:
    """See ``excitation.Layer``. Weights are kept where there are more of them than signal."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, at: Site, sizes: torch.Size, shape: Any
    ) -> None:
        self.weight, self.bias, self._at, self._sizes, self._shape = weight, bias, at, sizes, shape
        *_, transposed, _, groups = shape
        self.joined = groups == 1 and not transposed
        self._keep = weight.numel() > at.output.shape[1:].numel()

    def forth(self, a: Tensor, bias: Tensor | None) -> Tensor:
        given = a, self._weights("magnitude"), bias, *self._shape
        found = packed.convolution(*given) if self._keep else None
        return aten.convolution.default(*given) if found is None else found

    def back(self, s: Tensor, use: Use) -> Tensor:
        maps = None if use == "above each other" else self._at.maps
        return _adjoint(s, False, maps, self._sizes, self._weights(use), *self._shape)

    def _weights(self, use: Use) -> Tensor:
        return weights(use, self.weight, self._at.gamma / 2, self._keep)


def _adjoint(
    s: Tensor,
    overwrite: bool,
    maps: Tensor | None,
    sizes: torch.Size,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    s = laid_out(s)
    if transposed:
        shape = (stride, padding, dilation, transposed, output_padding, groups)
        return convolution_adjoint(s, sizes, weight, *shape)
    leftover = left_over(sizes, s.shape[2:], weight.shape[2:], stride, padding, dilation)
    kept = sparse.kept_maps(maps, s, weight, groups)
    window = (stride, padding, dilation, leftover)
    if kept is None and groups == 1:
        found = packed.transposed_convolution(s, weight, window)
        if found is not None:
            return found
    if _is_matrix(weight, padding, groups):
        if _maps_innermost(s):
            return sparse.pointwise(s, weight, stride, sizes, kept)
        if set(stride) == {1} and s.shape[2:].numel() > max(weight.shape[:2]):
            # Convolutions are faster forwards, where there is more signal than weights, which
            # have to be turned round.
            return aten.convolution.default(
                s, weight.transpose(0, 1), None, stride, padding, dilation, False, output_padding, 1
            )
    if kept is not None:
        own = s if overwrite and s.shape[1:] == (weight.shape[1], *sizes) else None
        return sparse.over_kept_maps(s, weight, window, kept, own)
    return transposed_convolution(s, weight, *window, groups)


def _is_matrix(weight: Tensor, padding: list[int], groups: int) -> bool:
    """Whether it is the same matrix at each position."""
    return groups == 1 and set(weight.shape[2:]) == {1} and not any(padding)


def _maps_innermost(s: Tensor) -> bool:
    """Whether a position's maps lie beside each other, as matrix products need them."""
    return (
        s.device.type == "cpu"
        and (s.dtype == torch.float32 or onednn_takes(s))  # else convolutions alone are quick
        and s.movedim(1, -1).is_contiguous()
    )


@faster(aten.linear.default, reads=_all_with_gamma)
def linear(s: Tensor, at: Site, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W^T s, W^T (s - b), or the excitation walk."""
    if at.gamma:
        return excitation(s, at, x, _Dense(weight, bias, at.gamma / 2))
    subtracted = bias if at.settings.subtract_bias else None
    back = sparse.dense(s, weight)
    if back is None:
        return (s if subtracted is None else s - subtracted) @ weight
    return back if subtracted is None else back - _of_bias(weight, subtracted)


class _Dense:
    """See ``excitation.Layer``. What is made of large weights stays in the caches, some rows at a
    time, instead of taking as much memory again."""

    joined = False

    def __init__(self, weight: Tensor, bias: Tensor | None, half: float) -> None:
        self.weight, self.bias, self._half = weight, bias, half
        self._whole = weight.numel() < _LARGE

    def forth(self, a: Tensor, bias: Tensor | None) -> Tensor:
        if self._whole:
            return aten.linear.default(a, weights("magnitude", self.weight, self._half, True), bias)
        samples, block = a.flatten(0, -2), self._block()
        products = []
        for rows in torch.split(self.weight, len(block)):
            parts = _parts(torch.abs(rows, out=block[: len(rows)]))
            product = torch.bmm(parts, samples.mT.expand(len(parts), -1, -1))
            products.append(product.flatten(0, 1))
        total = torch.cat(products).mT.mul_(self._half).reshape(*a.shape[:-1], -1)
        return total if bias is None else total.add_(bias)

    def back(self, s: Tensor, use: Use) -> Tensor:
        if self._whole or use == "plain":
            return s @ weights(use, self.weight, self._half, self._whole)
        samples, block = s.flatten(0, -2), self._block()
        arrived = samples.any(0).nonzero().flatten()  # most rows get no signal
        total = samples.new_zeros(len(samples), self.weight.shape[1])
        more = 1 + 2 * self._half
        for numbers in torch.split(arrived, len(block)):
            rows = torch.index_select(self.weight, 0, numbers, out=block[: len(numbers)])
            if use == "excited":  # W + gamma W+ is (1 + gamma) W+ + W-
                functional.leaky_relu_(rows, 1 / more)
            else:
                rows.abs_()
            parts = _parts(rows)
            given = samples[:, numbers].reshape(len(samples), len(parts), -1).transpose(0, 1)
            total.add_(torch.bmm(given, parts).sum(0))
        total.mul_(more if use == "excited" else self._half)
        return total.reshape(*s.shape[:-1], -1)

    def _block(self) -> Tensor:
        size, threads = self.weight.shape[1], torch.get_num_threads()
        rows = max(1, _BLOCK // size // threads) * threads
        return self.weight.new_empty(rows, size)


def _parts(rows: Tensor) -> Tensor:
    """Rows as one matrix a thread, (threads, rows, inputs), so that who made them multiplies with
    them: what another core has in its cache comes four times as slowly as from memory."""
    threads = torch.get_num_threads()
    parts = threads if len(rows) % threads == 0 else 1
    return rows.view(parts, len(rows) // parts, rows.shape[1])


_LARGE, _BLOCK = 2**21, 2**19
"""Weights of a dense layer above which nothing is made of all at once, and how many are then."""


def _of_bias(weight: Tensor, bias: Tensor) -> Tensor:
    """W^T b, which is the same for all images. Without it the signal stays sparse."""
    if bias.is_inference() or weight.is_inference():
        return bias @ weight  # nobody counts what is written to them
    versions = (bias._version, weight._version)
    source, made_for, known = _OF_BIAS.get(bias, (None, None, bias))
    if source is not weight or made_for != versions:
        known = bias @ weight
        _OF_BIAS[bias] = weight, versions, known
    return known


_OF_BIAS: MutableMapping[Tensor, tuple[Tensor, tuple[int, int], Tensor]] = WeakTensorKeyDictionary()
