"""Exported programs: PyTorch's own reader would run each of the payloads here."""

from __future__ import annotations

import functools
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hostile.archives import Payload
from hostile.case import TRACE, archive, kind, sparse, zeros
from torchfbi import load
from torchfbi.errors import ModelError

program = kind("program", lambda path: load(str(path)), ModelError)
CALL = f"__import__('os').mkdir('{TRACE}')"


@functools.cache
def parts() -> dict[str, bytes]:
    """The parts of an honest program, by name."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO},)
        exported = torch.export.export(
            network, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=batch, strict=False
        )
        torch.export.save(exported, buffer)
    with zipfile.ZipFile(buffer) as file:
        return {name: file.read(name) for name in file.namelist()}


def written(folder: Path, changes: dict[str, bytes], compressed: bool = False) -> Path:
    """The honest program with other parts; the names end so."""
    path = folder / "a.pt2"
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    root = next(iter(parts())).partition("/")[0]
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in parts().items():
            file.writestr(name, changes.get(name.partition("/")[2], content))
        for name, content in changes.items():
            if f"{root}/{name}" not in parts():
                file.writestr(f"{root}/{name}", content)
    return path


def told(folder: Path, change: Callable[[Any], object]) -> Path:
    """The honest program with another description of its graph."""
    (name,) = (name for name in parts() if name.endswith("models/model.json"))
    content = json.loads(parts()[name])
    change(content)
    return written(folder, {"models/model.json": json.dumps(content).encode()})


def size(content: Any, text: str) -> None:
    graph = content["graph_module"]["graph"]
    for tensor in graph["tensor_values"].values():
        for side in tensor["sizes"]:
            if "as_expr" in side:
                side["as_expr"]["expr_str"] = text


def node(content: Any) -> Any:
    return content["graph_module"]["graph"]["nodes"][-1]


for name, change in {
    "size that is a call": lambda c: size(c, CALL),
    "size that is a method": lambda c: size(c, f"Symbol('s1').__class__.__init__({CALL})"),
    "size that evaluates a text": lambda c: size(c, f'sympify("{CALL}")'),
    "size that never ends": lambda c: size(c, "9**9**9**9"),
    "size within nine hundred parentheses": lambda c: size(c, "(" * 900 + "1" + ")" * 900),
    "guard that is a call": lambda c: c.update(guards_code=[f"{CALL} is None"]),
    "guard that is a statement": lambda c: c.update(guards_code=[f"True)\n  {CALL}\n  (True"]),
    "guard that is a generator": lambda c: c.update(guards_code=["[a for a in L['x'].size()]"]),
    "operator that is a shell": lambda c: node(c).update(target="torch.os.system"),
    "operator that writes files": lambda c: node(c).update(
        target="torch.ops.aten.from_file.default"
    ),
    "argument whose name is code": lambda c: node(c)["inputs"][0].update(name=f"x={CALL}, y"),
    "output of an imported type": lambda c: c["graph_module"]["module_call_graph"][0][
        "signature"
    ].update(
        out_spec='[1, {"type": "collections.defaultdict", "context": "{\\"default_factory_module\\"'
        ': \\"os\\", \\"default_factory_name\\": \\"abort\\"}", "children_spec": []}]'
    ),
}.items():

    def make(folder: Path, change: Callable[[Any], object] = change) -> Path:
        return told(folder, change)

    make.__name__ = name
    program("refused")(make)


@program("refused")
def sample_that_is_a_pickle_of_old(folder: Path) -> Path:
    content = f"cos\nmkdir\n(S'{TRACE}'\ntR.".encode()
    return written(folder, {"data/sample_inputs/model.pt": content})


@program("refused")
def sample_that_is_a_pickle_in_an_archive(folder: Path) -> Path:
    buffer = io.BytesIO()
    torch.save({"a": Payload()}, buffer)
    return written(folder, {"data/sample_inputs/model.pt": buffer.getvalue()})


@program("refused")
def weight_that_is_a_pickle(folder: Path) -> Path:
    name = "data/weights/model_weights_config.json"
    (full,) = (part for part in parts() if part.endswith(name))
    content = json.loads(parts()[full])
    for entry in content["config"].values():
        entry.update(use_pickle=True)
    return written(folder, {name: json.dumps(content).encode(),
                            "data/weights/weight_0": pickle.dumps(Payload())})  # fmt: skip


@program("refused")
def object_that_is_a_pickle(folder: Path) -> Path:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False}
    config = json.dumps({"config": {"a": {**entry, "tensor_meta": None}}}).encode()
    return written(folder, {"data/constants/model_constants_config.json": config,
                            "data/constants/opaque_obj_0": pickle.dumps(Payload())})  # fmt: skip


@program("refused")
def compiled_library(folder: Path) -> Path:
    return written(folder, {"data/aotinductor/model/a.so": b"\x7fELF"})


@program("refused")
def part_that_climbs_out(folder: Path) -> Path:
    return written(folder, {f"../../{TRACE}": b"x"})


@program("compressed or overlap")
def zip_bomb(folder: Path) -> Path:
    (folder / "a.pt2").write_bytes(archive(("a/data/weights/weight_0", zeros(2**15), 2**35)))
    return folder / "a.pt2"


@program("refused|not an exported program")
def two_archives_in_one_file(folder: Path) -> Path:
    honest = written(folder, {}).read_bytes()
    hostile = written(folder, {"data/sample_inputs/model.pt": b"cos\nabort\n(tR."}).read_bytes()
    (folder / "a.pt2").write_bytes(hostile + honest[:-22])
    return folder / "a.pt2"


@program("not an exported program")
def tensor_beyond_its_memory(folder: Path) -> Path:
    name = "data/weights/model_weights_config.json"
    (full,) = (part for part in parts() if part.endswith(name))
    content = json.loads(parts()[full])
    for entry in content["config"].values():
        entry["tensor_meta"]["sizes"] = [{"as_int": 2**40}]
        entry["tensor_meta"]["strides"] = [{"as_int": 1}]
    return written(folder, {name: json.dumps(content).encode()})


@program("not an exported program")
def terabyte_of_zeros(folder: Path) -> Path:
    return sparse(folder / "a.pt2", 2**40)
