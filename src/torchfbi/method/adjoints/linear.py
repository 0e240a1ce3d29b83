"""Adjoints of the affine layers: convolution, dense, and normalisation with fixed statistics."""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from torchfbi.method.adjoints import packed, sparse
from torchfbi.method.adjoints.excitation import excitation
from torchfbi.method.adjoints.registry import Site, adjoint
from torchfbi.method.adjoints.transposed import left_over, transposed_convolution
from torchfbi.method.settings import Settings
from torchfbi.system.layout import laid_out, onednn_takes
from torchfbi.system.tracing import tracing

aten = torch.ops.aten


def _all_without_gamma(settings: Settings) -> set[str]:
    """The plain adjoint knows nothing of the forward pass."""
    return set() if settings.gamma else {"inputs", "output"}


@adjoint(
    aten.convolution.default, keeps=("inputs", "output"), fresh=True, spares=_all_without_gamma
)
def convolution(
    s: Tensor,
    at: Site,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    """Convolution with the flipped filters, no bias term (section 2, "Deconvolution"); or the
    excitation walk."""
    shape = (stride, padding, dilation, transposed, output_padding, groups)
    if at.gamma:
        return excitation(
            s,
            at.output,
            x,
            weight,
            bias,
            at.gamma,
            lambda a, w, b: aten.convolution.default(a, w, b, *shape),
            lambda s, w: _plain(s, at._replace(overwrite=False), x, w, *shape),
            at.one_sided,
        )
    return _plain(s, at, x, weight, *shape)


def _plain(
    s: Tensor,
    at: Site,
    x: Tensor,
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
        zeros = [0] * len(stride)
        back: Tensor = aten.convolution.default(
            s, weight, None, stride, padding, dilation, False, zeros, groups
        )
        # Output padding of a stride or more makes room for further windows.
        for dim, size in enumerate(x.shape[2:], start=2):
            back = back.narrow(dim, 0, size)
        return back
    leftover = left_over(x.shape[2:], s.shape[2:], weight.shape[2:], stride, padding, dilation)
    kept = sparse.kept_maps(at.maps, s, weight, groups)
    window = (stride, padding, dilation, leftover)
    if kept is None and groups == 1:
        found = packed.transposed_convolution(s, weight, window)
        if found is not None:
            return found
    if _is_matrix(weight, padding, groups):
        if _maps_innermost(s):
            return sparse.pointwise(s, weight, stride, x.shape[2:], kept)
        if set(stride) == {1} and s[0, 0].numel() > max(weight.shape[:2]):
            # Convolutions are faster forwards, where there is more signal than weights, which
            # have to be turned round.
            return aten.convolution.default(
                s, weight.transpose(0, 1), None, stride, padding, dilation, False, output_padding, 1
            )
    if kept is not None:
        own = s if at.overwrite and s.shape == x.shape else None
        return sparse.over_kept_maps(s, weight, window, kept, own)
    return transposed_convolution(s, weight, *window, groups)


def _is_matrix(weight: Tensor, padding: list[int], groups: int) -> bool:
    """Whether it is the same matrix at each position."""
    return groups == 1 and set(weight.shape[2:]) == {1} and not any(padding)


def _maps_innermost(s: Tensor) -> bool:
    """Whether a position's maps lie beside each other, as matrix products need them."""
    return (
        not tracing()
        and s.device.type == "cpu"
        and (s.dtype == torch.float32 or onednn_takes(s))  # else convolutions alone are quick
        and s.movedim(1, -1).is_contiguous()
    )


@adjoint(aten.linear.default, keeps=("inputs", "output"), fresh=True, spares=_all_without_gamma)
def linear(s: Tensor, at: Site, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W^T s, or W^T (s - b) as in section 2, "Dense layers"; or the excitation walk."""
    if at.gamma:
        return excitation(
            s,
            at.output,
            x,
            weight,
            bias,
            at.gamma,
            aten.linear.default,
            lambda s, w: s @ w,
            at.one_sided,
        )
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


@adjoint(aten.batch_norm.default)
def batch_norm(
    s: Tensor,
    at: Site,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """s gamma / sqrt(var + eps): at inference batch norm is an affine layer."""
    scale = torch.rsqrt(running_var + eps)
    return s * _per_channel(scale if weight is None else scale * weight, s)


@adjoint(aten.layer_norm.default, keeps=("inputs",))
def layer_norm(
    s: Tensor,
    at: Site,
    x: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """Linear with the deviation held constant: centred, and s gamma / std.

    That the mean is taken off is linear itself, so it is kept: what is the same in all maps of a
    token is no evidence. Source: Ali et al. 2022, section 3.2, whose rule detaches the deviation.
    """
    dims = tuple(range(-len(normalized_shape), 0))
    scaled = (s if weight is None else s * weight) * torch.rsqrt(
        x.var(dims, correction=0, keepdim=True) + eps
    )
    return scaled - scaled.mean(dims, keepdim=True)


@adjoint(aten.rms_norm.default, keeps=("inputs",))
def rms_norm(
    s: Tensor,
    at: Site,
    x: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Linear with the root mean square held constant: s gamma / rms."""
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # in half precision squares overflow
    scale = torch.rsqrt(wide.square().mean(dims, keepdim=True) + eps).to(s.dtype)
    return (s if weight is None else s * weight) * scale


@adjoint(aten.group_norm.default, keeps=("inputs",))
def group_norm(
    s: Tensor,
    at: Site,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """As a layer norm over the group: centred, and s gamma / std."""
    grouped = x.reshape(x.shape[0], num_groups, -1)
    scaled = s if weight is None else s * _per_channel(weight, s)
    scaled = scaled.reshape(grouped.shape) * torch.rsqrt(
        grouped.var(2, correction=0, keepdim=True) + eps
    )
    return (scaled - scaled.mean(2, keepdim=True)).reshape(x.shape)


@adjoint(aten.instance_norm.default, keeps=("inputs",))
def instance_norm(
    s: Tensor,
    at: Site,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """As a layer norm over the map: centred, and s gamma / std. With running statistics it is a
    batch norm."""
    scaled = s if weight is None else s * _per_channel(weight, s)
    if not use_input_stats and running_var is not None:
        return scaled * torch.rsqrt(_per_channel(running_var, x) + eps)
    dims = tuple(range(2, x.ndim))
    scaled = scaled * torch.rsqrt(x.var(dims, correction=0, keepdim=True) + eps)
    return scaled - scaled.mean(dims, keepdim=True)


def _per_channel(vector: Tensor, like: Tensor) -> Tensor:
    return vector.reshape(1, -1, *([1] * (like.ndim - 2)))
