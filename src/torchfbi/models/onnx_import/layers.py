"""Layers: convolution, dense, pooling, normalisation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfbi.models.onnx_import.registry import Call, operator

_CONV: list[Any] = [F.conv1d, F.conv2d, F.conv3d]
_CONV_TRANSPOSED: list[Any] = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d]
_MAX_POOL: list[Any] = [F.max_pool1d, F.max_pool2d, F.max_pool3d]
_AVERAGE_POOL: list[Any] = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d]


@operator("Conv")
def conv(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Padding that differs between two sides is added beforehand."""
    stride, dilation, begin, end = _window(call, x, list(weight.shape[2:]))
    if begin != end:
        x, begin = _pad(x, begin, end), [0] * len(begin)
    return _CONV[len(stride) - 1](x, weight, bias, stride, begin, dilation, call.get("group", 1))


@operator("ConvTranspose")
def conv_transpose(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Padding cuts the result; where its two sides differ, or the size is given, afterwards. A size
    that is larger than the result adds to its end."""
    sides = x.ndim - 2
    stride, dilation = (call.get(name, [1] * sides) for name in ("strides", "dilations"))
    out = list(call.get("output_padding", [0] * sides))
    auto, sizes = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    full = [
        s * (n - 1) + o + d * (k - 1) + 1
        for s, n, o, d, k in zip(stride, x.shape[2:], out, dilation, weight.shape[2:], strict=True)
    ]
    begin, end = _halves(call.get("pads", [0] * 2 * sides))
    if sizes is not None or auto.startswith("SAME"):
        if sizes is not None:
            out = [o + max(n - f, 0) for o, f, n in zip(out, full, sizes[-sides:], strict=True)]
        else:
            sizes = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
        excess = [max(f - n, 0) for f, n in zip(full, sizes[-sides:], strict=True)]
        begin = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in excess]
        end = [t - b for t, b in zip(excess, begin, strict=True)]
    same = begin == end
    y = _CONV_TRANSPOSED[sides - 1](
        x, weight, bias, stride, begin if same else 0, out, call.get("group", 1), dilation
    )
    return y if same else _pad(y, [-b for b in begin], [-e for e in end])


@operator("MaxPool")
def max_pool(call: Call, x: Tensor) -> Tensor:
    """Padding never wins, so what PyTorch's operator does not take is added as minus infinity."""
    kernel = list(call.get("kernel_shape"))
    stride, dilation, begin, end = _window(call, x, kernel)
    if call.get("auto_pad", "NOTSET").startswith("SAME") and any(d != 1 for d in dilation):
        raise ValueError("a dilated maximum with SAME padding, which runtimes pad differently")
    pool, ceil = _MAX_POOL[len(kernel) - 1], bool(call.get("ceil_mode", 0))
    if begin == end and all(2 * b <= k for b, k in zip(begin, kernel, strict=True)):
        return pool(x, kernel, stride, begin, dilation, ceil)
    y = pool(_pad(x, begin, end, float("-inf")), kernel, stride, 0, dilation, ceil)
    return _begun(y, x, stride, begin)


@operator("AveragePool")
def average_pool(call: Call, x: Tensor) -> Tensor:
    """Over the pixels of the image alone, or also over the padding."""
    kernel = list(call.get("kernel_shape"))
    stride, dilation, begin, end = _window(call, x, kernel)
    if any(d != 1 for d in dilation):
        raise ValueError("a dilated average")
    pool, ceil = _AVERAGE_POOL[len(kernel) - 1], bool(call.get("ceil_mode", 0))
    counted = bool(call.get("count_include_pad", 0))
    if begin == end and all(2 * b <= k for b, k in zip(begin, kernel, strict=True)):
        return pool(x, kernel, stride, begin, ceil, counted)
    average = _begun(pool(_pad(x, begin, end), kernel, stride, 0, ceil), x, stride, begin)
    if counted:
        return average
    inside = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    share = pool(_pad(inside, begin, end), kernel, stride, 0, ceil)
    return average / _begun(share, x, stride, begin)


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Tensor) -> Tensor:
    """The mean of every map."""
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Tensor) -> Tensor:
    """The maximum of every map."""
    return x.amax(list(range(2, x.ndim)), keepdim=True)


@operator("Gemm")
def gemm(call: Call, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    """A dense layer: alpha x W + beta b."""
    x = x.T if call.get("transA", 0) else x
    weight = weight if call.get("transB", 0) else weight.T
    if call.get("alpha", 1.0) != 1:
        weight = weight * call.get("alpha")
    if bias is not None and call.get("beta", 1.0) != 1:
        bias = bias * call.get("beta")
    if isinstance(bias, Tensor) and bias.numel() == weight.shape[0]:
        return F.linear(x, weight, bias.reshape(-1))
    y = F.linear(x, weight)
    return y if bias is None else y + bias


@operator("MatMul")
def matmul(call: Call, x: Tensor, y: Tensor) -> Tensor:
    """As in NumPy."""
    return torch.matmul(x, y)


@operator("BatchNormalization")
def batch_normalization(
    call: Call, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """With the statistics of the training."""
    if call.get("training_mode", 0) or not call.get("spatial", 1):
        raise ValueError("batch normalisation by the statistics of the batch, or of every pixel")
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, call.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every map by its own statistics."""
    return F.instance_norm(x, None, None, scale, bias, eps=call.get("epsilon", 1e-5))


@operator("GroupNormalization")
def group_normalization(call: Call, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Groups of maps; up to opset 20 with a scale a group, not a map."""
    groups = call.get("num_groups")
    if call.opset < 21:
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return F.group_norm(x, groups, scale, bias, call.get("epsilon", 1e-5))


@operator("LayerNormalization")
def layer_normalization(
    call: Call, x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Over the axis and all behind it."""
    shape = x.shape[call.get("axis", -1) :]
    return F.layer_norm(x, shape, scale, bias, call.get("epsilon", 1e-5))


@operator("LRN")
def local_response_norm(call: Call, x: Tensor) -> Tensor:
    """Every map by the energy of its neighbours."""
    size = call.get("size")
    if size % 2 == 0:
        raise ValueError("local response norm over an even number of maps")
    alpha, beta, k = call.get("alpha", 1e-4), call.get("beta", 0.75), call.get("bias", 1.0)
    return F.local_response_norm(x, size, alpha, beta, k)


def _window(
    call: Call, x: Tensor, kernel: list[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Stride, dilation, and padding before and after, of every side."""
    sides = x.ndim - 2
    stride = list(call.get("strides", [1] * sides))
    dilation = list(call.get("dilations", [1] * sides))
    auto = call.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return stride, dilation, [0] * sides, [0] * sides
    if auto == "NOTSET":
        return stride, dilation, *_halves(call.get("pads", [0] * 2 * sides))
    if call.get("ceil_mode", 0):
        raise ValueError(f"sizes that are rounded up (ceil_mode) beside auto_pad {auto}")
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    total = [
        max((-(-n // s) - 1) * s + r - n, 0)
        for n, s, r in zip(x.shape[2:], stride, reach, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (stride, dilation, small, large) if auto == "SAME_UPPER" else (
        stride, dilation, large, small)  # fmt: skip


def _begun(y: Tensor, x: Tensor, stride: list[int], begin: list[int]) -> Tensor:
    """Without the windows that begin in the padding after the image, which rounding up brings."""
    for axis, (n, s, b) in enumerate(zip(x.shape[2:], stride, begin, strict=True), start=2):
        y = y.narrow(axis, 0, min(y.shape[axis], -(-(n + b) // s)))
    return y


def _halves(pads: list[int]) -> tuple[list[int], list[int]]:
    return list(pads[: len(pads) // 2]), list(pads[len(pads) // 2 :])


def _pad(x: Tensor, begin: list[int], end: list[int], value: float = 0.0) -> Tensor:
    pairs = [side for pair in zip(begin, end, strict=True) for side in reversed(pair)]
    return F.pad(x, pairs[::-1], value=value)
