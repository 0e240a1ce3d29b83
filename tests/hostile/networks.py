"""Networks in ONNX and Keras files."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hostile.case import TRACE, sparse
from hostile.case import kind as of_kind
from torchfbi import load
from torchfbi.errors import ModelError

network = of_kind("ONNX", lambda path: load(str(path)), ModelError)
keras = of_kind("Keras", lambda path: load(str(path)), ModelError)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def model(
    nodes: list[Any], constants: dict[str, np.ndarray] | None = None, shape: Any = (1, 3, 8, 8)
) -> Any:
    """A network from x to y."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
            for name, size in (("x", shape), ("y", None)))  # fmt: skip
    graph = helper.make_graph(nodes, "hostile", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def written(folder: Path, proto: Any) -> Path:
    (folder / "a.onnx").write_bytes(proto.SerializeToString())
    return folder / "a.onnx"


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


RELU = [node("Relu", "x", "y")]


@network("circle")
def graph_in_a_circle(folder: Path) -> Path:
    nodes = [node("Add", "x c", "a"), node("Relu", "a", "b"), node("Relu", "b", "c")]
    return written(folder, model([*nodes, node("Relu", "c", "y")]))


@network("circle")
def node_that_reads_itself(folder: Path) -> Path:
    return written(folder, model([node("Add", "x y", "y")]))


@network("damaged")
def cut_short(folder: Path) -> Path:
    path = written(folder, model([node("Conv", "x w", "y")], {"w": np.ones((4, 3, 3, 3))}))
    path.write_bytes(path.read_bytes()[:-100])
    return path


@network("ONNX|gigabytes")
def terabyte_of_zeros(folder: Path) -> Path:
    return sparse(folder / "a.onnx", 2**40)


@network("overflow|memory")
def image_of_an_exapixel(folder: Path) -> Path:
    return written(folder, model(RELU, shape=(1, 3, 10**9, 10**9)))


@network("memory")
def constant_of_a_terabyte(folder: Path) -> Path:
    nodes = [node("ConstantOfShape", "n", "c"), node("Add", "x c", "y")]
    return written(folder, model(nodes, {"n": ints(10**6, 10**6)}))


@network("memory|cannot be run")
def padding_of_a_terabyte(folder: Path) -> Path:
    pads = ints(0, 0, 10**6, 10**6, 0, 0, 0, 0)
    return written(folder, model([node("Pad", "x n", "y")], {"n": pads}))


@network("beyond all sizes")
def size_that_doubles_at_every_node(folder: Path) -> Path:
    chain = [node("Concat", f"n{i} n{i}", f"n{i + 1}", axis=0) for i in range(1000)]
    nodes = [*chain, node("Reshape", "x n1000", "y")]
    return written(folder, model(nodes, {"n0": ints(1, 1)}))


@network("damaged")
def weights_that_claim_an_exabyte(folder: Path) -> Path:
    proto = model([node("Conv", "x w", "y")], {"w": np.ones((4, 3, 3, 3), np.float32)})
    proto.graph.initializer[0].dims[0] = 2**60
    return written(folder, proto)


@network("damaged")
def weights_of_negative_size(folder: Path) -> Path:
    proto = model([node("Conv", "x w", "y")], {"w": np.ones((4, 3, 3, 3), np.float32)})
    proto.graph.initializer[0].dims[0] = -4
    return written(folder, proto)


def outside(folder: Path, location: str, count: int = 4) -> Path:
    """A network whose weights are said to lie somewhere else."""
    proto = model([node("Conv", "x w", "y")], {"w": np.ones((count, 3, 3, 3), np.float32)})
    (weights,) = proto.graph.initializer
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    return written(folder, proto)


@network("no such file")
def weights_in_the_folder_above(folder: Path) -> Path:
    (folder / "secret").write_bytes(bytes(1000))
    (folder / "inner").mkdir()
    return outside(folder / "inner", "../secret")


@network("no such file")
def weights_in_the_system(folder: Path) -> Path:
    return outside(folder, "/etc/passwd")


@network("no such file")
def weights_behind_a_link(folder: Path) -> Path:
    (folder / "inner").mkdir()
    (folder / "secret").write_bytes(bytes(1000))
    (folder / "inner" / "weights").symlink_to(folder / "secret")
    return outside(folder / "inner", "weights")


@network("no such file")
def weights_in_a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "weights")
    return outside(folder, "weights")


@network("memory")
def weights_in_a_terabyte_of_nothing(folder: Path) -> Path:
    sparse(folder / "weights", 2**40)
    path = outside(folder, "weights")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].dims[0] = 10**10
    return written(folder, proto)


@network(None)
def names_ten_thousand_parts_deep(folder: Path) -> Path:
    relu = node("Relu", "x", "y")
    relu.name = ".".join("a" * 10_000)
    return written(folder, model([relu]))


@network(None)
def names_of_methods(folder: Path) -> Path:
    relu = node("Relu", "x", "u")
    relu.name = "forward.__class__.eval/../../-rf\n"
    conv = node("Conv", "u w", "y")
    conv.name = "__dict__.parameters"
    return written(folder, model([relu, conv], {"w": np.ones((4, 3, 1, 1), np.float32)}))


def honest(folder: Path) -> Path:
    """A network that is harmless."""
    return written(folder, model(RELU))


@network(None)
def five_thousand_nodes(folder: Path) -> Path:
    chain = [node("Relu", f"n{i}", f"n{i + 1}") for i in range(5000)]
    nodes = [node("Relu", "x", "n0"), *chain, node("Relu", "n5000", "y")]
    return written(folder, model(nodes))


@network("takes 0 inputs|not supported")
def branches_within_branches(folder: Path) -> Path:
    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    inner = helper.make_graph([node("Relu", "x", "a")], "inner", [], [value("a")])
    for _ in range(20):
        branch = node("If", "b", "a", then_branch=inner, else_branch=inner)
        del branch.attribute[1:]
        inner = helper.make_graph([branch], "inner", [], [value("a")])
    return written(folder, model([node("If", "b", "y", then_branch=inner, else_branch=inner)],
                                 {"b": np.array(True)}))  # fmt: skip


@network("not supported")
def operator_of_a_foreign_library(folder: Path) -> Path:
    call = node("PyOp", "x", "y", module="os", compute="system")
    call.domain = "ai.onnx.contrib"
    return written(folder, model([call]))


@network("STRING")
def weights_of_text(folder: Path) -> Path:
    proto = model([node("Add", "x w", "y")])
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"a"]))
    return written(folder, proto)


@network("damaged|no network")
def pickle_called_onnx(folder: Path) -> Path:
    (folder / "a.onnx").write_bytes(f"cos\nmkdir\n(S'{TRACE}'\ntR.".encode())
    return folder / "a.onnx"


@keras("Keras cannot load it")
def archive_that_climbs_out(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.keras", "w") as archive:
        archive.writestr(f"../{TRACE}", "x")
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    return folder / "a.keras"


@keras("Keras cannot load it")
def function_of_another_package(folder: Path) -> Path:
    config = (
        '{"module": "os", "class_name": "function", "config": "mkdir", "registered_name": "mkdir"}'
    )
    with zipfile.ZipFile(folder / "a.keras", "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
        archive.writestr("model.weights.h5", "")
    return folder / "a.keras"


def lambda_layer() -> str:
    """A network with a layer that is Python code, as Keras' versions before 3 wrote it."""
    import base64
    import marshal

    code = compile(f"__import__('os').mkdir('{TRACE}')", "lambda", "eval")
    function = [base64.b64encode(marshal.dumps(code)).decode(), None, None]
    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8, 8, 3]}},
        {"class_name": "Lambda", "config": {"function": function, "function_type": "lambda"}},
    ]
    return json.dumps({"class_name": "Sequential", "config": {"name": "a", "layers": layers}})


@keras("Keras cannot load it")
def layer_of_python_code(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file.attrs["model_config"] = lambda_layer()
    return folder / "a.h5"


@keras("Keras cannot load it|holds weights")
def weights_in_another_file(folder: Path) -> Path:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file["model_weights"] = h5py.ExternalLink("/etc/passwd", "/")
    return folder / "a.h5"


@keras("Keras cannot load it|no such file")
def header_of_h5_cut_short(folder: Path) -> Path:
    (folder / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\xff" * 100)
    return folder / "a.h5"
