"""The weights of an ONNX file in half the bytes: what has to be sent before a page can answer.

Each weight is a whole number of 16 bits times the scale of its output channel (Jacob et al. 2018,
section 2.1, there with 8 bits). That is closer than float16, which spends bits on exponents, and
runtimes multiply it out once, as they load the file.
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

LARGE = 4096
"""Weights of fewer entries stay as they are: all of them together are small."""

STEPS = 2**15 - 1


def compact(path: Path, to: Path) -> None:
    """Write an ONNX file anew, with its large float32 weights as whole numbers and scales."""
    onnx: Any = import_module("onnx")
    proto = onnx.load(path)
    nodes, scales = [], []
    for tensor in proto.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or math.prod(tensor.dims) < LARGE:
            continue
        name, weight = tensor.name, onnx.numpy_helper.to_array(tensor)
        rest = tuple(range(1, weight.ndim))
        scale = np.abs(weight).max(axis=rest, keepdims=True).astype(np.float32) / STEPS
        scale[scale == 0] = 1
        whole = np.round(weight / scale).astype(np.int16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(whole, f"{name}.whole"))
        scales.append(onnx.numpy_helper.from_array(scale, f"{name}.scale"))
        cast = {"to": onnx.TensorProto.FLOAT}
        nodes += [
            onnx.helper.make_node("Cast", [f"{name}.whole"], [f"{name}.float"], **cast),
            onnx.helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]),
        ]
    proto.graph.initializer.extend(scales)
    for node in proto.graph.node:
        node.ClearField("metadata_props")  # from which line of which file it was exported
    proto.graph.ClearField("value_info")
    nodes += proto.graph.node
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save(proto, to)
