"""From an ONNX file to plain Python data; the only place that knows protocol buffers."""

from __future__ import annotations

import importlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchfbi.errors import ModelError, first_line
from torchfbi.models.images import Array
from torchfbi.models.onnx_import.memory import LIMIT
from torchfbi.models.weights import instead_of
from torchfbi.system.reading import whole

OPSETS = range(7, 24)
"""Below, operators broadcast by other rules; above, they may have changed in the meantime."""

MOST_BYTES = 2**31
"""Protocol buffers end there; larger networks have their weights in files beside."""

_FLOATS = {"FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"}
_INTEGERS = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "BOOL"}


class Origin(NamedTuple):
    """Where a network comes from.

    Args:
        name: what it is called in messages.
        folder: where files with its weights may lie; None where there may be none.
    """

    name: str
    folder: Path | None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Node:
    """One operator call.

    Args:
        operator: its type, ``"Conv"``; of foreign domains with the domain in front.
        name: what it is called in explanations.
        inputs: names of values; "" where an optional one is left out.
        outputs: names of values, likewise.
        attributes: numbers, texts, lists of them, and arrays.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class File:
    """What an ONNX file holds.

    Args:
        origin: where it comes from.
        opset: the version of the operators.
        nodes: in an order in which every input is computed before it is used.
        constants: arrays by name: float32, or whole numbers.
        image: the name of the one input.
        shape: its sizes; None where the file leaves one open.
        outputs: the names of the results.
    """

    origin: Origin
    opset: int
    nodes: list[Node]
    constants: dict[str, Array]
    image: str
    shape: tuple[int | None, ...]
    outputs: tuple[str, ...]


def read(path: Path) -> File:
    """Read and check an ONNX file. Nothing in it is run.

    Raises:
        ModelError: the file is missing, damaged, inconsistent, needs files outside its folder,
            or has an opset that is not in ``OPSETS``; or the package ``onnx`` is missing.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    try:
        content = whole(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged, or not an ONNX file: {error}.") from error
    return parse(content, Origin(str(path), path.parent.resolve()))


def parse(content: bytes, origin: Origin) -> File:
    """As ``read``, of what a file holds.

    Raises:
        ModelError: as for ``read``.
    """
    onnx = _package()
    try:
        proto = onnx.load_model_from_string(content)
        if not proto.graph.node:
            raise ValueError("it holds no network")
    except Exception as error:  # protobuf's own exceptions
        if instead := instead_of(content[:9]):
            raise ModelError(f"{origin}: it is {instead}") from None
        raise ModelError(f"{origin}: damaged, or not an ONNX file: {first_line(error)}.") from error
    try:
        file = _file(onnx, proto, origin)
    except ModelError:
        raise
    except (ValueError, TypeError) as error:  # unknown numbers, texts that are no UTF-8
        raise ModelError(f"{origin}: damaged: {error}") from error
    _check_order(file)
    return file


def _file(onnx: Any, proto: Any, origin: Origin) -> File:
    if proto.graph.sparse_initializer:
        raise ModelError(f"{origin}: sparse weights are not supported: save them dense.")
    constants = {tensor.name: _array(onnx, tensor, origin) for tensor in proto.graph.initializer}
    nodes = [_node(onnx, node, origin) for node in proto.graph.node]
    used = {name for node in nodes for name in node.inputs}
    images = [i for i in proto.graph.input if i.name not in constants and i.name in used]
    if len(images) != 1:
        raise ModelError(f"{origin}: it takes {len(images)} inputs; torchfbi explains one.")
    outputs = tuple(out.name for out in proto.graph.output)
    opset, shape = _opset(proto, origin), _shape(images[0])
    return File(origin, opset, nodes, constants, images[0].name, shape, outputs)


def _package() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ModelError("The package onnx is missing. Install it: pip install onnx") from error


def _opset(proto: Any, origin: Origin) -> int:
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in OPSETS:
        found = ", ".join(map(str, versions)) or "none"
        raise ModelError(
            f"{origin}: opset {found}; {OPSETS[0]} to {OPSETS[-1]} can be read. Export it again, "
            "or convert it with onnx.version_converter."
        )
    return int(versions[0])


def _shape(image: Any) -> tuple[int | None, ...]:
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else None
        for dim in image.type.tensor_type.shape.dim
    )


def _array(onnx: Any, tensor: Any, origin: Origin) -> Array:
    """A tensor's values; of floating-point numbers always float32."""
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    if kind not in _FLOATS | _INTEGERS:
        raise ModelError(
            f"{origin}: the values of {tensor.name!r} are {kind}, which is unsupported."
        )
    try:
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > LIMIT:
            raise ValueError(f"sizes {list(tensor.dims)}, negative or too much memory")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            array = _external(onnx, tensor, origin)
        else:
            array = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError, OSError) as error:
        raise ModelError(
            f"{origin}: the values of {tensor.name!r} are damaged or missing: {error}"
        ) from error
    return array.astype(np.float32 if kind in _FLOATS else array.dtype, copy=False)


def _external(onnx: Any, tensor: Any, origin: Origin) -> Array:
    """Values that lie in another file, which must be in the same folder or below."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if origin.folder is None:
        raise ValueError(
            f"they should be in {entries.get('location')!r}, which did not come with it: save the "
            "network as one file."
        )
    place = (origin.folder / entries.get("location", "")).resolve()
    if not place.is_relative_to(origin.folder) or not place.is_file():
        raise ValueError(
            f"they should be in {entries.get('location')!r}, but there is no such file in "
            f"{origin.folder} or below."
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count = math.prod(tensor.dims)
    start, size = int(entries.get("offset", 0)), count * dtype.itemsize
    if start < 0 or start + size > place.stat().st_size:
        with place.open("rb") as file:
            instead = instead_of(file.read(9))
        found = f"is {instead}" if instead else f"holds fewer than {count} numbers there"
        raise ValueError(f"{place.name} {found}")
    array: Array = np.fromfile(place, dtype, count, offset=start)
    return array.reshape(tuple(tensor.dims))


def _node(onnx: Any, node: Any, origin: Origin) -> Node:
    kinds = onnx.AttributeProto
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.type == kinds.TENSOR:
            attributes[attribute.name] = _array(onnx, attribute.t, origin)
        elif attribute.type in (kinds.INT, kinds.INTS, kinds.FLOAT, kinds.FLOATS):
            attributes[attribute.name] = onnx.helper.get_attribute_value(attribute)
        elif attribute.type == kinds.STRING:
            attributes[attribute.name] = attribute.s.decode()
    foreign = node.domain not in ("", "ai.onnx")
    operator = f"{node.domain}:{node.op_type}" if foreign else node.op_type
    return Node(operator, _name(node), tuple(node.input), tuple(node.output), attributes)


def _name(node: Any) -> str:
    """The module that PyTorch's exporters noted, else the node's name, else its output's."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = re.findall(r"'([^']*)'", entry.value)
            if scopes[:-1] and scopes[-2]:
                return str(scopes[-2])
    name = node.name or next(filter(None, node.output), node.op_type)
    if not name.startswith("/"):
        return str(name)
    # "/layer1/layer1.0/conv1/Conv" was layer1.0.conv1
    parts = name.strip("/").split("/")
    if len(parts) > 1 and re.fullmatch(rf"{re.escape(node.op_type)}(_\d+)?", parts[-1]):
        parts.pop()
    kept = [a for a, b in zip(parts, [*parts[1:], ""], strict=True) if not b.startswith(f"{a}.")]
    return ".".join(kept)


def _check_order(file: File) -> None:
    known = {file.image, *file.constants, ""}
    for node in file.nodes:
        for name in node.inputs:
            if name not in known:
                raise ModelError(
                    f"{file.origin}: {node.operator} {node.name!r} reads {name!r}, which nothing "
                    "before it computes: a value is missing, or the network goes in a circle."
                )
        if not node.outputs or not node.outputs[0]:
            raise ModelError(f"{file.origin}: {node.operator} {node.name!r} computes nothing.")
        for name in filter(None, node.outputs):
            if name in known:
                raise ModelError(f"{file.origin}: {name!r} is computed twice.")
            known.add(name)
    for name in file.outputs:
        if name not in known:
            raise ModelError(f"{file.origin}: nothing computes the output {name!r}.")
