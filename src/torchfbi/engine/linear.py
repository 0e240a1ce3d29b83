"""Convolutions and dense layers: packed weights, kept maps alone, products as memory lies."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from torchfbi.engine import packed, sparse
from torchfbi.engine.excitation import excitation
from torchfbi.engine.rules import Site, faster
from torchfbi.engine.transposed import transposed_convolution
from torchfbi.method.adjoints.linear import convolution_adjoint
from torchfbi.method.adjoints.windows import left_over
from torchfbi.method.settings import Settings
from torchfbi.system.layout import laid_out, onednn_takes

aten = torch.ops.aten


def _all_with_gamma(settings: Settings) -> set[str]:
    """The plain adjoint knows nothing of the forward pass."""
    return {"inputs", "output"} if settings.gamma else set()


@faster(aten.convolution.default, reads=_all_with_gamma)
def convolution(
    s: Tensor, at: Site, x: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any
) -> Tensor:
    """The plain adjoint or the excitation walk."""
    sizes = x.shape[2:]
    if not at.gamma:
        return _adjoint(s, at.overwrite, at.maps, sizes, weight, *shape)

    def forward(a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        found = packed.convolution(a, w, b, *shape) if keep else None
        return aten.convolution.default(a, w, b, *shape) if found is None else found

    def adjoint(s: Tensor, w: Tensor) -> Tensor:
        return _adjoint(s, False, at.maps, sizes, w, *shape)

    *_, transposed, _, groups = shape
    joined = groups == 1 and not transposed
    keep = weight.numel() > at.output[0].numel()
    return excitation(s, at, x, weight, bias, forward, adjoint, keep=keep, joined=joined)


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
        if set(stride) == {1} and s[0, 0].numel() > max(weight.shape[:2]):
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
        return excitation(s, at, x, weight, bias, aten.linear.default, torch.matmul)
    subtracted = bias if at.settings.subtract_bias else None
    back = sparse.dense(s, weight)
    if back is None:
        return (s if subtracted is None else s - subtracted) @ weight
    return back if subtracted is None else back - _of_bias(weight, subtracted)


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
