"""ONNX files: equal to onnxruntime, operator by operator and as whole networks; never a hang."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import torchfbi
from torchfbi.errors import ModelError
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.settings import Settings
from torchfbi.models import onnx as loader
from torchfbi.models import onnx_import
from torchfbi.models.torchvision import import_torchvision

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def file(
    path: Path,
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    shape: tuple[Any, ...],
    opset: int = 17,
    outputs: tuple[str, ...] = ("y",),
) -> Path:
    """An ONNX file with the input ``x``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def runtime(path: Path, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def off(ours: Tensor, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.detach().numpy() - theirs).max() / max(np.abs(theirs).max(), 1e-6))


IMAGE, ODD, VECTOR = (2, 8, 12, 10), (2, 8, 13, 11), (3, 6)
W = random(6, 8, 3, 3)
STATISTICS = [random(8), random(8, seed=1), random(8, seed=2), np.abs(random(8, seed=3)) + 0.5]

# operator, opset, input shape, constants, attributes
CASES: list[tuple[str, int, tuple[int, ...], list[Any], dict[str, Any]]] = [
    ("Conv", 7, IMAGE, [W, random(6)], {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
    ("Conv", 11, IMAGE, [W], {"pads": [0, 1, 2, 0], "dilations": [2, 1]}),
    ("Conv", 17, ODD, [W], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", 17, ODD, [W], {"auto_pad": "SAME_LOWER", "strides": [3, 2]}),
    ("Conv", 17, IMAGE, [W], {"auto_pad": "VALID"}),
    ("Conv", 17, IMAGE, [random(8, 2, 3, 3)], {"group": 4}),
    ("Conv", 17, (2, 3, 9), [random(4, 3, 3)], {}),
    ("Conv", 17, (2, 3, 5, 6, 7), [random(4, 3, 3, 3, 3)], {}),
    ("ConvTranspose", 11, IMAGE, [random(8, 4, 3, 3), random(4)], {"strides": [2, 2]}),
    ("ConvTranspose", 11, IMAGE, [random(8, 4, 3, 3)],
     {"strides": [2, 3], "pads": [1, 0, 0, 2], "output_padding": [1, 1]}),
    ("ConvTranspose", 11, IMAGE, [random(8, 2, 4, 4)],
     {"strides": [2, 2], "pads": [1, 1, 1, 1], "group": 2}),
    ("ConvTranspose", 11, IMAGE, [random(8, 4, 3, 3)],
     {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", 11, IMAGE, [random(8, 4, 3, 3)],
     {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("ConvTranspose", 11, IMAGE, [random(8, 4, 3, 3)],
     {"strides": [2, 2], "output_shape": [24, 20]}),
    ("ConvTranspose", 11, IMAGE, [random(8, 4, 3, 3)],
     {"strides": [3, 2], "output_shape": [37, 22]}),
    ("ConvTranspose", 11, IMAGE, [random(8, 4, 1, 1)],
     {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", 8, IMAGE, [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", 12, ODD, [], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", 12, ODD, [], {"kernel_shape": [3, 3], "dilations": [2, 1]}),
    ("MaxPool", 12, ODD, [], {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", 12, IMAGE, [], {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2]}),
    ("MaxPool", 12, IMAGE, [],
     {"kernel_shape": [2, 1], "strides": [3, 1], "ceil_mode": 1, "pads": [0, 0, 1, 0]}),
    ("AveragePool", 7, IMAGE, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", 7, IMAGE, [],
     {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", 11, ODD, [],
     {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("AveragePool", 11, ODD, [],
     {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
    ("AveragePool", 11, ODD, [],
     {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", 19, IMAGE, [],
     {"kernel_shape": [2, 1], "strides": [3, 1], "ceil_mode": 1, "pads": [0, 0, 1, 0]}),
    ("AveragePool", 11, ODD, [],
     {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("GlobalAveragePool", 7, IMAGE, [], {}),
    ("GlobalMaxPool", 7, IMAGE, [], {}),
    ("Gemm", 7, VECTOR, [random(6, 4), random(4)], {}),
    ("Gemm", 11, VECTOR, [random(4, 6), random(1, 4)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", 11, VECTOR, [random(4, 6), random(3, 1)], {"transB": 1}),
    ("Gemm", 13, VECTOR, [random(3, 4)], {"transA": 1}),
    ("MatMul", 13, (2, 4, 6), [random(6, 5)], {}),
    ("BatchNormalization", 7, IMAGE, STATISTICS, {"epsilon": 0.01}),
    ("BatchNormalization", 15, IMAGE, STATISTICS, {}),
    ("InstanceNormalization", 7, IMAGE, STATISTICS[:2], {"epsilon": 0.01}),
    ("GroupNormalization", 18, IMAGE, [random(2), random(2, seed=1)], {"num_groups": 2}),
    ("GroupNormalization", 21, IMAGE, STATISTICS[:2], {"num_groups": 4}),
    ("LayerNormalization", 17, IMAGE, [random(10), random(10)], {"epsilon": 0.01}),
    ("LayerNormalization", 17, IMAGE, [random(12, 10)], {"axis": 2}),
    ("LRN", 7, IMAGE, [], {"size": 5, "alpha": 0.1, "beta": 0.6, "bias": 2.0}),
    *[(kind, 14, IMAGE, [], {}) for kind in (
        "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Elu",
        "Selu", "Celu", "LeakyRelu", "ThresholdedRelu", "Exp", "Abs", "Neg", "Erf", "Floor",
        "Ceil", "Identity", "Dropout", "Flatten", "Transpose", "Sum", "Round", "Reciprocal")],
    ("Mish", 18, IMAGE, [], {}),
    ("Gelu", 20, IMAGE, [], {}),
    ("Gelu", 20, IMAGE, [], {"approximate": "tanh"}),
    ("Elu", 7, IMAGE, [], {"alpha": 0.5}),
    ("Celu", 12, IMAGE, [], {"alpha": 2.0}),
    ("Selu", 7, IMAGE, [], {"alpha": 2.0, "gamma": 0.5}),
    ("LeakyRelu", 7, IMAGE, [], {"alpha": 0.3}),
    ("HardSigmoid", 7, IMAGE, [], {"alpha": 1 / 6, "beta": 0.5}),
    ("PRelu", 7, IMAGE, [random(8, 1, 1)], {}),
    ("PRelu", 9, IMAGE, [random(1)], {}),
    ("PRelu", 9, IMAGE, [random(12, 1)], {}),
    ("PRelu", 9, VECTOR, [random(6)], {}),
    ("Clip", 7, IMAGE, [], {"min": -0.5, "max": 0.5}),
    ("Clip", 7, IMAGE, [], {}),
    ("Clip", 11, IMAGE, [np.float32(0), np.float32(6)], {}),
    ("Clip", 13, IMAGE, [None, np.float32(0.3)], {}),
    ("Clip", 13, IMAGE, [np.float32(0)], {}),
    ("Softmax", 7, IMAGE, [], {"axis": 1}),
    ("Softmax", 11, IMAGE, [], {"axis": -2}),
    ("Softmax", 13, IMAGE, [], {"axis": 1}),
    ("LogSoftmax", 13, VECTOR, [], {}),
    ("Add", 7, IMAGE, [random(8, 1, 1)], {}),
    ("Sub", 7, IMAGE, [random(1)], {}),
    ("Mul", 7, IMAGE, [np.float32(3)], {}),
    ("Div", 7, IMAGE, [random(10)], {}),
    ("Pow", 13, IMAGE, [np.float32(2)], {}),
    ("Max", 13, IMAGE, [np.float32(0)], {}),
    ("Min", 13, IMAGE, [random(10), np.float32(1)], {}),
    ("Mean", 13, IMAGE, [random(10)], {}),
    ("Reshape", 7, IMAGE, [ints(0, 2, 4, -1)], {}),
    ("Reshape", 7, IMAGE, [ints(2, 80, 12)], {}),
    ("Reshape", 14, IMAGE, [ints(-1)], {}),
    ("Flatten", 9, IMAGE, [], {"axis": 2}),
    ("Flatten", 9, IMAGE, [], {"axis": 0}),
    ("Flatten", 11, IMAGE, [], {"axis": -1}),
    ("Transpose", 7, IMAGE, [], {"perm": [0, 2, 3, 1]}),
    ("Squeeze", 7, (2, 3, 1, 1), [], {"axes": [2, 3]}),
    ("Squeeze", 13, (2, 3, 1, 1), [ints(-1)], {}),
    ("Squeeze", 13, (2, 3, 1, 1), [], {}),
    ("Unsqueeze", 7, VECTOR, [], {"axes": [0, 3]}),
    ("Unsqueeze", 13, VECTOR, [ints(1, -1)], {}),
    ("Expand", 8, (2, 3, 1), [ints(4, 1, 1, 5)], {}),
    ("Tile", 7, VECTOR, [ints(2, 3)], {}),
    ("Slice", 7, IMAGE, [], {"starts": [1, -3], "ends": [2**31, -1], "axes": [1, 3]}),
    ("Slice", 13, IMAGE, [ints(0, 1), ints(8, 2**62), ints(1, -1), ints(2, 3)], {}),
    ("Gather", 13, IMAGE, [np.int64(2)], {"axis": 1}),
    ("Gather", 13, IMAGE, [ints(3, 0, -1)], {"axis": 1}),
    ("Gather", 13, IMAGE, [ints(3, 4)], {"axis": 2}),
    ("GatherND", 12, IMAGE, [np.array([[[0, 7], [1, -3]], [[1, 0], [-2, 5]]])], {}),
    ("GatherND", 13, IMAGE, [np.array([[1], [0], [1]])], {}),
    ("Concat", 13, IMAGE, [random(2, 8, 12, 3)], {"axis": 3}),
    ("Pad", 7, IMAGE, [], {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 0.5}),
    ("Pad", 11, IMAGE, [ints(0, 1, 1, 2, 0, 0, 3, 0), np.float32(2)], {}),
    ("Pad", 13, IMAGE, [ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "reflect"}),
    ("Pad", 13, IMAGE, [ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "edge"}),
    ("Pad", 18, IMAGE, [ints(1, 2, 3, 4), None, ints(2, -1)], {}),
    ("ReduceMean", 11, IMAGE, [], {"axes": [2, 3], "keepdims": 0}),
    ("ReduceMean", 18, IMAGE, [ints(-1, -2)], {}),
    ("ReduceMean", 18, IMAGE, [], {"noop_with_empty_axes": 1}),
    ("ReduceSum", 13, IMAGE, [ints(1)], {"keepdims": 0}),
    ("ReduceMax", 13, IMAGE, [], {"axes": [1]}),
    ("ReduceMin", 13, IMAGE, [], {}),
    ("ReduceL1", 18, IMAGE, [ints(1)], {}),
    ("ReduceL2", 13, IMAGE, [], {"axes": [1, 2], "keepdims": 0}),
    ("ReduceSumSquare", 13, IMAGE, [], {"axes": [-1]}),
    ("LpNormalization", 22, IMAGE, [], {"axis": 1}),
    ("LpNormalization", 22, IMAGE, [], {"p": 1}),
    ("CumSum", 14, IMAGE, [np.int64(-1)], {"exclusive": 1}),
    ("CumSum", 14, IMAGE, [np.int32(2)], {"reverse": 1}),
    ("CumSum", 14, IMAGE, [np.int64(1)], {"reverse": 1, "exclusive": 1}),
    ("Einsum", 13, IMAGE, [random(8, 5)], {"equation": "nchw,cd->ndhw"}),
    ("DepthToSpace", 11, IMAGE, [], {"blocksize": 2}),
    ("DepthToSpace", 11, IMAGE, [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", 11, IMAGE, [], {"blocksize": 2}),
    ("Upsample", 7, IMAGE, [], {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}),
    ("Upsample", 9, IMAGE, [floats(1, 1, 2, 2)], {"mode": "nearest"}),
    ("Resize", 10, IMAGE, [floats(1, 1, 2, 1)], {"mode": "nearest"}),
    ("Resize", 13, IMAGE, [None, floats(1, 1, 2, 3)], {"mode": "nearest"}),
    ("Resize", 13, IMAGE, [None, None, ints(2, 8, 7, 15)],
     {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("Resize", 13, IMAGE, [None, None, ints(2, 8, 7, 15)], {"mode": "linear"}),
    ("Resize", 13, IMAGE, [None, floats(1, 1, 1.5, 2)],
     {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}),
    ("Resize", 13, IMAGE, [None, floats(1, 1, 1.5, 2)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("Resize", 18, IMAGE, [None, None, ints(20, 30)],
     {"mode": "cubic", "axes": [2, 3], "coordinate_transformation_mode": "half_pixel"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_operators_do_what_onnxruntime_does(case: Any, tmp_path: Path) -> None:
    operator, opset, shape, constants, attributes = case
    named = {f"c{i}": np.asarray(c) for i, c in enumerate(constants) if c is not None}
    names = ["x", *("" if c is None else f"c{i}" for i, c in enumerate(constants))]
    node = helper.make_node(operator, names, ["y"], name="node", **attributes)
    path = file(tmp_path / "net.onnx", [node], named, shape, opset)
    network = onnx_import.Network(onnx_import.read(path)).eval()
    x = random(*shape, seed=7)
    (expected,) = runtime(path, x)
    assert off(network(torch.from_numpy(x)), expected) < 2e-6
    assert network.check(shape) == {"y": expected.shape}


UNCLEAR: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Dropout", [np.float32(0.5), np.bool_(True)], {}),
    ("MaxPool", [], {"kernel_shape": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("AveragePool", [], {"kernel_shape": [1, 2], "ceil_mode": 1, "auto_pad": "SAME_UPPER"}),
    ("Resize", [None, floats(1, 1, 0.6, 0.6)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("Resize", [None, None, ints(2, 8, 6, 1)],
     {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}),
]  # fmt: skip
"""Operators of which the specification and its runtimes, or PyTorch, say different things."""


@pytest.mark.parametrize("case", UNCLEAR, ids=lambda case: case[0])
def test_what_is_not_computed_as_the_file_means_it_is_refused(case: Any, tmp_path: Path) -> None:
    operator, constants, attributes = case
    named = {f"c{i}": np.asarray(c) for i, c in enumerate(constants) if c is not None}
    names = ["x", *("" if c is None else f"c{i}" for i, c in enumerate(constants))]
    node = helper.make_node(operator, names, ["y"], name="node", **attributes)
    network = onnx_import.Network(
        onnx_import.read(file(tmp_path / "net.onnx", [node], named, IMAGE, 17))
    )
    with pytest.raises(ModelError, match=f"{operator} 'node' cannot be run"):
        network.check(IMAGE)


def test_an_output_that_is_not_computed_is_refused(tmp_path: Path) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "where"], name="pool", kernel_shape=[2, 2])
    path = file(tmp_path / "net.onnx", [pool], {}, IMAGE, 17, outputs=("y", "where"))
    with pytest.raises(ModelError, match="second result 'where' is not supported"):
        onnx_import.Network(onnx_import.read(path)).check(IMAGE)


def test_every_operator_is_tested() -> None:
    below = {"Split", "ConstantOfShape", "Cast", "Log", "Sqrt", "Silu", "Where", "Equal", "Greater",
             "Less", "And", "Or", "Not", "GreaterOrEqual", "LessOrEqual", "Range"}  # fmt: skip
    assert set(onnx_import.supported()) == {case[0] for case in CASES} | below


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    """A node in short: names parted by blanks, named after its outputs."""
    return helper.make_node(
        operator, inputs.split(), outputs.split(), name=f"the_{outputs.split()[0]}", **attributes
    )


def agrees(path: Path, x: np.ndarray, tolerance: float = 2e-6) -> onnx_import.Network:
    network = onnx_import.Network(onnx_import.read(path)).eval()
    results = network(torch.from_numpy(x))
    ours = list(results.values()) if isinstance(results, dict) else [results]
    theirs = runtime(path, x)
    assert len(ours) == len(theirs)
    assert all(off(a, b) < tolerance for a, b in zip(ours, theirs, strict=True))
    return network


@pytest.mark.parametrize(("opset", "sizes"), [(11, "attribute"), (13, "input"), (13, "equal")])
def test_split_has_several_outputs(opset: int, sizes: str, tmp_path: Path) -> None:
    parts = [2, 6] if sizes != "equal" else [4, 4]
    options = {"split": parts} if sizes == "attribute" else {}
    inputs = "x parts" if sizes == "input" else "x"
    nodes = [node("Split", inputs, "a b", axis=1, **options)]
    constants = {"parts": ints(*parts)} if sizes == "input" else {}
    agrees(file(tmp_path / "n.onnx", nodes, constants, IMAGE, opset, ("a", "b")), random(*IMAGE))


def test_sizes_are_numbers_and_the_batch_stays_free(tmp_path: Path) -> None:
    """Reshape to (N, 2, C/2, H W) as exporters spell it, a resize to twice the height, and a
    constant of the batch's size."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        node("Gather", "shape one", "c", axis=0),
        node("Slice", "shape two four", "hw"),
        node("ReduceProd", "hw", "area", keepdims=1),
        node("Div", "c two0", "half"),
        node("Unsqueeze", "n axis0", "n1"),
        node("Unsqueeze", "half axis0", "half1"),
        node("Concat", "n1 two half1 area", "grouped", axis=0),
        node("Reshape", "x grouped", "g"),
        node("Transpose", "g", "t", perm=[0, 2, 1, 3]),
        node("Reshape", "t shape", "shuffled"),
        node("Cast", "hw", "hw_float", to=TensorProto.FLOAT),
        node("Mul", "hw_float scale", "larger"),
        node("Floor", "larger", "floor"),
        node("Cast", "floor", "size", to=TensorProto.INT64),
        node("Slice", "shape zero1 two", "nc"),
        node("Concat", "nc size", "sizes", axis=0),
        node("Resize", "shuffled   sizes".replace("   ", " empty empty "), "resized"),
        node("ConstantOfShape", "n1", "ones",
             value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])),
        node("Reshape", "ones column", "offset"),
        node("Add", "resized offset", "y"),
    ]  # fmt: skip
    for n in nodes:
        n.input[:] = ["" if name == "empty" else name for name in n.input]
    constants = {
        "zero": np.int64(0), "one": np.int64(1), "two": ints(2), "four": ints(4),
        "two0": np.int64(2), "axis0": ints(0), "scale": floats(2, 1), "zero1": ints(0),
        "column": ints(-1, 1, 1, 1),
    }  # fmt: skip
    path = file(tmp_path / "n.onnx", nodes, constants, ("batch", 8, 6, 5))
    network = agrees(path, random(3, 8, 6, 5))
    assert len(list(network.parameters())) == 0
    program = torch.export.export(
        network, (torch.zeros(2, 8, 6, 5),), dynamic_shapes=({0: torch.export.Dim("n")},)
    )
    x = torch.from_numpy(random(5, 8, 6, 5))
    assert torch.equal(program.module()(x), network(x))


def test_a_fixed_batch_that_is_only_passed_on_becomes_free(tmp_path: Path) -> None:
    nodes = [
        node("Reshape", "x grouped", "g"),
        node("Transpose", "g", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t whole", "w"),
        node("Relu", "w", "r"),
        node("Reshape", "r flat", "f"),
        node("Gemm", "f dense", "y"),
    ]
    constants = {"grouped": ints(1, 2, 4, 6, 5), "whole": ints(1, 8, 6, 5), "flat": ints(1, -1),
                 "dense": random(240, 3)}  # fmt: skip
    network = agrees(file(tmp_path / "n.onnx", nodes, constants, (1, 8, 6, 5)), random(1, 8, 6, 5))
    x = torch.from_numpy(random(4, 8, 6, 5))
    alone = torch.cat([network(sample[None]) for sample in x])
    assert torch.allclose(network(x), alone, atol=1e-6)
    assert ForwardBackward(network, x).graph.batch is None


_HALF, _SIXTH, _ROOT = np.float32(0.5), np.float32(6), np.float32(2**0.5)
_GELU = [node("Div", "u root", "d"), node("Erf", "d", "e"), node("Add", "e one", "g")]
_HARD = [node("Add", "u three", "s"), node("Clip", "s zero six", "c")]
TAKEN_APART = {
    "silu": [node("Sigmoid", "u", "g"), node("Mul", "u g", "v")],
    "hardswish": [node("HardSigmoid", "u", "g", alpha=1 / 6), node("Mul", "g u", "v")],
    "hardswish:2": [*_HARD, node("Mul", "u c", "p"), node("Div", "p six", "v")],
    "hardswish:3": [*_HARD, node("Div", "c six", "g"), node("Mul", "u g", "v")],
    "mish": [node("Softplus", "u", "s"), node("Tanh", "s", "g"), node("Mul", "u g", "v")],
    "gelu": [*_GELU, node("Mul", "u g", "p"), node("Mul", "p half", "v")],
    "gelu:2": [*_GELU, node("Mul", "u half", "h"), node("Mul", "h g", "v")],
    "gelu:3": [*_GELU, node("Mul", "g half", "h"), node("Mul", "u h", "v")],
}


@pytest.mark.parametrize("name", TAKEN_APART)
def test_activations_that_were_taken_apart_are_features_again(name: str, tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "u"), *TAKEN_APART[name], node("GlobalAveragePool", "v", "a"),
             node("Flatten", "a", "y")]  # fmt: skip
    constants = {"w": W, "root": _ROOT, "half": _HALF, "one": np.float32(1),
                 "three": np.float32(3), "zero": np.float32(0), "six": _SIXTH}  # fmt: skip
    network = agrees(file(tmp_path / "n.onnx", nodes, constants, IMAGE), random(*IMAGE))
    graph = ForwardBackward(network, torch.zeros(IMAGE)).graph
    assert [f.meta["layer"] for f in graph.features] == [f"the_v.{name.partition(':')[0]}"]


def test_casts_and_comparisons(tmp_path: Path) -> None:
    """A mask made of whole numbers; the constants are computed when the file is read."""
    nodes = [
        node("Cast", "x", "whole", to=TensorProto.INT32),
        node("Cast", "whole", "back", to=TensorProto.FLOAT),
        node("Cast", "back", "half", to=TensorProto.DOUBLE),
        node("Cast", "half", "again", to=TensorProto.FLOAT),
        *[node(kind, "w zero", kind.lower()) for kind in (
            "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")],
        node("Or", "greater less", "a"), node("And", "a lessorequal", "b"),
        node("Not", "b", "c"), node("Or", "c equal", "d"), node("And", "d greaterorequal", "e"),
        node("Sqrt", "area", "root"), node("Log", "area", "log"),
        node("Where", "e root log", "mask"),
        node("Mul", "again mask", "y"),
    ]  # fmt: skip
    w = random(8, 12, 10)
    constants = {"w": w, "zero": floats(0), "area": np.abs(w) + 1}
    network = agrees(file(tmp_path / "n.onnx", nodes, constants, IMAGE), 3 * random(*IMAGE))
    assert {step.node.operator for step in network.steps} == {"Cast", "Mul"}


def test_a_product_with_another_gate_is_not_taken_for_an_activation(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "u"), node("Conv", "x v", "other"),
             node("Sigmoid", "other", "g"), node("Mul", "u g", "y")]  # fmt: skip
    constants = {"w": W, "v": random(6, 8, 3, 3, seed=5)}
    agrees(file(tmp_path / "n.onnx", nodes, constants, IMAGE), random(*IMAGE))


# Whole networks


def with_random_weights(path: Path) -> Any:
    """One of the ``light`` files, whose weights are all the same number, with others.

    The hidden dense layers, hundreds of megabytes, stay as they are.
    """
    model = onnx.load(path)
    graph, kept, generator = model.graph, [], np.random.default_rng(0)
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer if "SHAPE" in i.name}
    for one in graph.node:
        shape = shapes.get(one.input[0], np.zeros(1)) if one.input else np.zeros(1)
        if one.op_type != "ConstantOfShape" or shape.prod() > 5_000_000:
            kept.append(one)
            continue
        deviation = np.sqrt(2 / max(np.prod(shape[1:]), 1)) if len(shape) > 1 else 0.2
        # uniform: drawn ten times as fast as normal ones
        values = (generator.random(tuple(shape), np.float32) - 0.5) * np.float32(12**0.5)
        values = values * np.float32(deviation) + np.float32(len(shape) == 1)
        graph.initializer.append(numpy_helper.from_array(values, one.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    return model


@pytest.mark.parametrize("path", sorted(LIGHT.glob("*.onnx")), ids=lambda path: path.stem)
def test_the_nine_published_architectures(path: Path, tmp_path: Path) -> None:
    model = with_random_weights(path)
    last = model.graph.node[-1]
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info(
            last.input[0] if last.op_type == "Softmax" else last.output[0], TensorProto.FLOAT, None
        )
    )
    onnx.save(model, tmp_path / "net.onnx")
    loaded = loader.load(tmp_path / "net.onnx")
    assert len(loaded.labels) == 1000
    assert loaded.preprocess.size == (224, 224)
    x = random(1, 3, 224, 224)
    (expected,) = runtime(tmp_path / "net.onnx", x)
    assert expected.std() > 1e-3 * abs(expected).max()
    assert off(loaded.module(torch.from_numpy(x)), expected.reshape(1, 1000)) < 1e-4


def test_the_constant_weights_of_those_files_are_computed_when_they_are_read() -> None:
    light = loader.load(LIGHT / "light_squeezenet.onnx")
    assert sum(p.numel() for p in light.module.parameters()) == 1_235_496
    assert all(step.node.operator != "ConstantOfShape" for step in light.module.steps)


def original(name: str) -> nn.Module:
    """A torchvision network whose batch norms do something, with one block a stage: more of them
    are more of the same operators."""
    module = import_torchvision().models.get_model(name, weights=None).eval()
    for part in list(module.modules()):
        for stage, blocks in part.named_children():
            if isinstance(blocks, nn.Sequential) and len({*map(type, blocks)}) == 1:
                setattr(part, stage, blocks[:1])
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
    return module.requires_grad_(False)


def exported(module: nn.Module, x: Tensor, path: Path, exporter: str, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its exporters
        if exporter == "dynamo":
            batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
            torch.onnx.export(
                module, (x,), path, dynamo=True, external_data=False, verbose=False, **batch
            )
        else:
            batch = {"dynamic_axes": {"input": {0: "batch"}}} if exporter == "legacy" else {}
            example = x if exporter == "legacy" else x[:1]
            torch.onnx.export(
                module, (example,), path, dynamo=False, input_names=["input"], **batch, **options
            )
    return path


@pytest.mark.parametrize(
    ("name", "exporter", "options"),
    [
        ("resnet18", "legacy", {}),
        ("squeezenet1_1", "dynamo", {}),
        ("squeezenet1_1", "legacy, batch of one", {"opset_version": 9}),
        ("shufflenet_v2_x0_5", "legacy, batch of one", {"opset_version": 12}),
        ("efficientnet_b0", "legacy", {}),
    ],
)
def test_a_round_trip_changes_neither_logits_nor_explanation(
    name: str, exporter: str, options: dict[str, Any], tmp_path: Path
) -> None:
    module = original(name)
    x = torch.randn(2, 3, 64, 64)
    path = exported(module, x, tmp_path / "net.onnx", exporter, **options)
    ours = loader.load(path).module
    samples = x.numpy() if "one" not in exporter else x.numpy()[:1]
    (expected,) = runtime(path, samples)
    assert off(ours(x)[: len(samples)], expected) < 1e-4

    # In double precision, since rounding can turn the winner of a max pooling of a deep network;
    # what is left is the exporters' folding of batch norms, in single precision.
    target = torch.tensor([3, 7])
    explained = [
        ForwardBackward(network.double(), x.double(), Settings.plain())
        for network in (ours, module)
    ]
    (values, _), (wanted, _) = (fbi(x.double(), target) for fbi in explained)
    assert (values - wanted).abs().max() < 1e-4 * wanted.abs().max()
    ours_features, features = (fbi.graph.features for fbi in explained)
    assert len(ours_features) == len(features)
    assert all(  # "layer1.0.relu.relu" was layer1.0.relu
        a.meta["layer"].split(":")[0].startswith(b.meta["layer"].split(":")[0])
        for a, b in zip(ours_features, features, strict=True)
        if exporter == "dynamo"
    )


@pytest.mark.parametrize("side", [8, 10])
def test_unequal_windows_are_a_table_of_places(side: int, tmp_path: Path) -> None:
    """How the newer exporter writes an adaptive pooling whose windows differ in size."""
    pooling = nn.AdaptiveAvgPool2d((7, 3))
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pooling, nn.Flatten()).eval()
    x = torch.randn(2, 3, side, side)
    path = exported(module, x, tmp_path / "net.onnx", "dynamo")
    ours = loader.load(path).module
    assert off(ours(x), runtime(path, x.numpy())[0]) < 2e-6
    for settings in (Settings.plain(), Settings.contrast()):
        explained = [ForwardBackward(network, x, settings)(x)[0] for network in (ours, module)]
        torch.testing.assert_close(*explained)


def test_a_mean_over_channels_last_is_one_for_any_batch(tmp_path: Path) -> None:
    """The newer exporter picks its entries by a table of places, which the batch's size decides."""
    pooling, head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), pooling, nn.Flatten(), head).eval()
    module.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 9).to(memory_format=torch.channels_last)
    path = exported(module, x, tmp_path / "net.onnx", "dynamo")
    assert "Gather" in {node.op_type for node in onnx.load(path).graph.node}
    ours = loader.load(path).module
    for count in (1, 5):
        more = torch.randn(count, 3, 8, 9)
        assert off(ours(more), runtime(path, more.numpy())[0]) < 2e-6
        explained = [
            ForwardBackward(net, more, Settings.plain())(more)[0] for net in (ours, module)
        ]
        torch.testing.assert_close(*explained)


# Files


def classifier(
    path: Path,
    shape: tuple[Any, ...] = ("n", 3, 16, 16),
    last: str = "Softmax",
    flat: bool = True,
) -> Path:
    channels_last = shape[-1] == 3
    nodes = [
        *([node("Transpose", "x", "nchw", perm=[0, 3, 1, 2])] if channels_last else []),
        node("Conv", f"{'nchw' if channels_last else 'x'} w b", "u"),
        node("Relu", "u", "r"),
        node("GlobalAveragePool", "r", "a"),
        node("Flatten" if flat else "Identity", "a", "z"),
        node(last, "z", "y", **({} if flat or "Softmax" not in last else {"axis": 1})),
    ]
    channels = 1 if 1 in shape[1:] else 3
    return file(path, nodes, {"w": random(5, channels, 3, 3), "b": random(5)}, shape)


def test_load_takes_an_onnx_file_and_explains_a_photo(tmp_path: Path) -> None:
    path = classifier(tmp_path / "net.onnx")
    model = torchfbi.load(str(path))
    assert (model.name, len(model.labels), model.preprocess.size) == ("net.onnx", 5, (16, 16))
    explanation = torchfbi.explain(model, np.random.default_rng(0).integers(
        0, 255, (20, 30, 3), np.uint8))  # fmt: skip
    assert explanation.logits.shape == (1, 5)


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax", "Sigmoid", "Identity"])
@pytest.mark.parametrize("flat", [True, False])
def test_it_is_explained_at_the_logits(last: str, flat: bool, tmp_path: Path) -> None:
    """Also where the probabilities are (N, classes, 1, 1)."""
    path = classifier(tmp_path / "net.onnx", last=last, flat=flat)
    bare = loader.load(classifier(tmp_path / "bare.onnx", last="Identity")).module
    module = loader.load(path).module
    x = torch.randn(2, 3, 16, 16)
    (expected,) = runtime(path, x.numpy()[:1])
    assert off(module(x[:1]), expected.reshape(1, 5)) < 2e-6
    explanation = torchfbi.explain(module, x)
    torch.testing.assert_close(explanation.logits, bare(x))
    assert torch.equal(explanation.values, torchfbi.explain(bare, x).values)
    expected = bare(x).sigmoid() if last == "Sigmoid" else bare(x).softmax(1)
    torch.testing.assert_close(explanation.probabilities, expected)


def test_probabilities_of_dense_outputs_keep_their_axis(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "z"), node("Softmax", "z", "y", axis=1)]
    path = file(tmp_path / "net.onnx", nodes, {"w": random(4, 3, 3, 3)}, (1, 3, 8, 8))
    x = random(1, 3, 8, 8)
    module = loader.load(path).module
    assert off(module(torch.from_numpy(x)), runtime(path, x)[0]) < 2e-6
    assert ForwardBackward(module, torch.from_numpy(x)).graph.head == "softmax"


def test_channels_may_come_last_as_tensorflow_has_them(tmp_path: Path) -> None:
    first = loader.load(classifier(tmp_path / "a.onnx", (1, 3, 16, 12)))
    last = loader.load(classifier(tmp_path / "b.onnx", (1, 16, 12, 3)))
    x = torch.randn(2, 3, 16, 12)
    assert first.preprocess == last.preprocess
    assert torch.equal(first.module(x), last.module(x))
    values, _ = ForwardBackward(last.module, x)(x)
    assert torch.equal(values, ForwardBackward(first.module, x)(x)[0])


def test_one_channel_is_grey_and_an_open_size_is_224(tmp_path: Path) -> None:
    grey = loader.load(classifier(tmp_path / "a.onnx", (1, 1, 28, 28))).preprocess
    assert (grey.channels, grey.size, grey.mean) == ("L", (28, 28), (0.0,))
    assert loader.load(classifier(tmp_path / "a.onnx", ("n", 3, "h", "w"))).preprocess.size == (
        224, 224)  # fmt: skip


def test_weights_may_lie_in_a_file_beside(tmp_path: Path) -> None:
    path = classifier(tmp_path / "net.onnx")
    before = loader.load(path).module
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data",
              size_threshold=0)  # fmt: skip
    assert (tmp_path / "net.data").exists()
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(loader.load(path).module(x), before(x))
    (tmp_path / "net.data").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"'w' are damaged or missing: net\.data holds fewer"):
        loader.load(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "missing", ""])
def test_weights_outside_the_folder_are_not_read(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(10_000))
    (tmp_path / "inner").mkdir()
    path = classifier(tmp_path / "inner" / "net.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(e for e in tensor.external_data if e.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="there is no such file"):
        loader.load(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    path = classifier(tmp_path / "inner" / "net.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.data",
              size_threshold=0)  # fmt: skip
    (tmp_path / "inner" / "net.data").rename(tmp_path / "secret")
    (tmp_path / "inner" / "net.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="there is no such file"):
        loader.load(path)


def test_all_unsupported_operators_are_listed_at_once(tmp_path: Path) -> None:
    nodes = [node("Hardmax", "x", "a"), node("Det", "a", "b"), node("Hardmax", "b", "y")]
    nodes[1].domain = "custom"
    path = file(tmp_path / "net.onnx", nodes, {}, (1, 3, 8, 8))
    with pytest.raises(ModelError) as error:
        loader.load(path)
    assert "2 operator(s) are not supported" in str(error.value)
    assert "Hardmax (at the_a, the_y); custom:Det (at the_b)" in str(error.value)


def test_a_file_cut_short_anywhere_is_an_error(tmp_path: Path) -> None:
    path = classifier(tmp_path / "net.onnx")
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"net\.onnx: "):
            loader.load(path)


BAD = {
    "circle": ([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")], {},
               "reads 'b', which nothing before it computes"),
    "missing": ([node("Conv", "x w", "y")], {}, "the_y' reads 'w'"),
    "twice": ([node("Relu", "x", "y"), node("Relu", "x", "y")], {}, "'y' is computed twice"),
    "no output": ([node("Relu", "x", "z")], {}, "nothing computes the output 'y'"),
    "misfit": ([node("Conv", "x w", "y")], {"w": random(4, 5, 3, 3)}, "Conv 'the_y' cannot be run"),
    "huge constant": ([node("ConstantOfShape", "n", "c"), node("Add", "x c", "y")],
                      {"n": ints(10**6, 10**6)}, "ConstantOfShape 'the_c' cannot be run: a tensor"),
    "endless shape": ([node("ConstantOfShape", "n", "c"), node("Add", "x c", "y")],
                      {"n": ints(2**62, 2**62)}, "ConstantOfShape 'the_c' cannot be run"),
    "huge padding": ([node("Pad", "x n", "y")], {"n": ints(0, 0, 0, 0, 0, 0, 2**40, 0)},
                     "Pad 'the_y' cannot be run"),
    "huge tile": ([node("Tile", "x n", "y")], {"n": ints(1, 1, 10**5, 10**5)}, "too much memory"),
    "huge resize": ([node("Resize", "x r s", "y")], {"r": floats(), "s": floats(1, 1, 1e5, 1e5)},
                    "too much memory"),
    "many sizes": ([node("Range", "a n a1", "r"), node("Reshape", "x r", "y")],
                   {"a": np.int64(0), "n": np.int64(10**15), "a1": np.int64(1)}, "too many for"),
    "no image": ([node("Relu", "c", "y"), node("Relu", "x", "z")], {"c": random(1, 3)},
                 "takes 0 inputs|is not computed from the image"),
    "indices": ([node("MaxPool", "x", "p i", kernel_shape=[2, 2]), node("Cast", "i", "f", to=1),
                 node("GlobalAveragePool", "f", "y")], {}, "second result 'i' is not supported"),
    "shape by pixels": ([node("Cast", "x", "i", to=7), node("Reshape", "x i", "y")], {},
                        "must be known before"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_hostile_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    nodes, constants, message = BAD[name]
    path = file(tmp_path / "net.onnx", nodes, constants, (1, 3, 8, 8))
    with pytest.raises(ModelError, match=message) as error:
        loader.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_sizes_that_double_at_every_node_stop(tmp_path: Path) -> None:
    for operator in ("Concat", "Mul"):
        options = {"axis": 0} if operator == "Concat" else {}
        chain = [node(operator, f"n{i} n{i}", f"n{i + 1}", **options) for i in range(100)]
        nodes = [*chain, node("Reshape", "x n100", "y")]
        path = file(tmp_path / "net.onnx", nodes, {"n0": ints(3, 5)}, (1, 3, 8, 8))
        with pytest.raises(ModelError, match="beyond all sizes"):
            loader.load(path)


def test_all_computed_constants_together_are_bounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes = [node("ConstantOfShape", "n", "a"), node("ConstantOfShape", "n", "b"),
             node("Add", "x a", "u"), node("Add", "u b", "y")]  # fmt: skip
    path = file(tmp_path / "net.onnx", nodes, {"n": ints(1, 3, 8, 8)}, (1, 3, 8, 8))
    monkeypatch.setattr(onnx_import.memory, "LIMIT", 400)  # enough for two tensors of 192
    loader.load(path)
    monkeypatch.setattr(onnx_import.memory, "LIMIT", 300)
    with pytest.raises(ModelError, match="'the_b' cannot be run: the constants take too much"):
        loader.load(path)


@pytest.mark.parametrize("shape", [(1, 3, 10**9, 10**9), (1, 3), (1, 3, 0, 8), (1, 7, 9, 5), ()])
def test_inputs_that_are_no_pictures(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = file(tmp_path / "net.onnx", [node("Relu", "x", "y")], {}, shape)
    with pytest.raises(ModelError, match=r"not pictures|overflow"):
        loader.load(path)


@pytest.mark.parametrize("opset", [6, 24])
def test_opsets_that_were_not_tried_are_refused(opset: int, tmp_path: Path) -> None:
    path = file(tmp_path / "net.onnx", [node("Relu", "x", "y")], {}, (1, 3, 8, 8), opset)
    with pytest.raises(ModelError, match=f"opset {opset}; 7 to 23 can be read"):
        loader.load(path)


def test_without_the_package_there_is_an_instruction(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = classifier(tmp_path / "net.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModelError, match="pip install onnx"):
        loader.load(path)
