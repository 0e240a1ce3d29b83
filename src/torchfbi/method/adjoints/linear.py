"""Adjoints of the affine layers: convolution, dense, and normalisation with fixed statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfbi.method.adjoints.excitation import excitation
from torchfbi.method.adjoints.registry import Site, adjoint
from torchfbi.method.adjoints.windows import left_over, transposed_convolution

aten = torch.ops.aten


@adjoint(aten.convolution.default, keeps=("inputs", "output"))
def convolution(
    s: Tensor, at: Site, x: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any
) -> Tensor:
    """Convolution with the flipped filters, no bias term (section 2, "Deconvolution"); or the
    excitation walk."""

    def forward(a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return aten.convolution.default(a, w, b, *shape)

    def plain(s: Tensor, w: Tensor) -> Tensor:
        return convolution_adjoint(s, x.shape[2:], w, *shape)

    return excitation(s, at.output, x, weight, bias, at.gamma, forward, plain)


def convolution_adjoint(
    s: Tensor,
    sizes: torch.Size,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    """The transpose of ``aten.convolution`` without its bias.

    Args:
        s: the signal, (N, O, ...).
        sizes: of the convolution's input, such as (H, W).
        weight, stride, padding, dilation, transposed, output_padding, groups: the convolution's.

    Returns:
        A tensor (N, I, *sizes).
    """
    if transposed:
        zeros = [0] * len(stride)
        back: Tensor = aten.convolution.default(
            s, weight, None, stride, padding, dilation, False, zeros, groups
        )
        # Output padding of a stride or more makes room for further windows.
        for dim, size in enumerate(sizes, start=2):
            back = back.narrow(dim, 0, size)
        return back
    leftover = left_over(sizes, s.shape[2:], weight.shape[2:], stride, padding, dilation)
    return transposed_convolution(s, weight, stride, padding, dilation, leftover, groups)


@adjoint(aten.linear.default, keeps=("inputs", "output"))
def linear(s: Tensor, at: Site, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """W^T s, or W^T (s - b) as in section 2, "Dense layers"; or the excitation walk."""
    if at.settings.subtract_bias and bias is not None and not at.gamma:
        s = s - bias
    return excitation(s, at.output, x, weight, bias, at.gamma, aten.linear.default, torch.matmul)


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
