"""The three formats: how an exported program is written, and how the file is run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram

from torchfbi.errors import ExportError
from torchfbi.export.explainer import Inputs, Outputs

Run = Callable[[Inputs], Outputs]

KEY = "torchfbi"
"""Under this name the metadata lie in every file, as JSON."""

OPSET = 18


class Format(NamedTuple):
    """One format.

    Args:
        suffix: what its files' names end in.
        write: writes program and metadata into a file.
        open: the file as a function from a question to its answer.
        read: the metadata of a file.
    """

    suffix: str
    write: Callable[[ExportedProgram, Path, dict[str, Any]], None]
    open: Callable[[Path], Run]
    read: Callable[[Path], dict[str, Any]]


def _write_program(program: ExportedProgram, path: Path, metadata: dict[str, Any]) -> None:
    torch.export.save(program, path, extra_files={KEY: json.dumps(metadata)})


def _open_program(path: Path) -> Run:
    module = torch.export.load(path).module()

    def run(question: Inputs) -> Outputs:
        with torch.no_grad():
            return Outputs(*module(**question.named()))

    return run


def _read_program(path: Path) -> dict[str, Any]:
    files = {KEY: ""}
    torch.export.load(path, extra_files=files)
    return json.loads(files[KEY])


def _write_onnx(program: ExportedProgram, path: Path, metadata: dict[str, Any]) -> None:
    _import("onnx")
    optimizer = _import("onnxscript.optimizer")
    names = program.graph_signature.user_inputs
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=[str(name) for name in names],
        output_names=list(Outputs._fields),
        external_data=False,
        verbose=False,
        optimize=False,  # its rules take as long as all the rest, and ONNX Runtime has its own
    )
    assert exported is not None
    optimizer.fold_constants(exported.model)
    optimizer.remove_unused_nodes(exported.model)
    exported.model.metadata_props[KEY] = json.dumps(metadata)
    exported.save(path, external_data=False)


def _open_onnx(path: Path) -> Run:
    runtime = _import("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(question: Inputs) -> Outputs:
        inputs = {name: tensor.cpu().numpy() for name, tensor in question.named().items()}
        return Outputs(*map(torch.from_numpy, session.run(Outputs._fields, inputs)))

    return run


def _read_onnx(path: Path) -> dict[str, Any]:
    runtime = _import("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return json.loads(session.get_modelmeta().custom_metadata_map[KEY])


def _write_aoti(program: ExportedProgram, path: Path, metadata: dict[str, Any]) -> None:
    inductor = import_module("torch._inductor")
    try:
        with torch.no_grad():
            inductor.aoti_compile_and_package(
                program,
                package_path=str(path),
                inductor_configs={
                    # Weights are packed once, which takes a fixed batch and copies of them.
                    "freezing": not program.range_constraints,
                    "aot_inductor.metadata": {KEY: json.dumps(metadata)},
                },
            )
    except Exception as error:
        if "compiler" in str(error).lower():
            raise ExportError(
                "AOTInductor compiles with a C++ compiler, and found none that works: install "
                "one (g++, clang or MSVC), or name it in the environment variable CXX."
            ) from error
        raise


def _open_aoti(path: Path) -> Run:
    model = import_module("torch._inductor").aoti_load_package(str(path))
    return lambda question: Outputs(*model(**question.named()))


def _read_aoti(path: Path) -> dict[str, Any]:
    model = import_module("torch._inductor").aoti_load_package(str(path))
    return json.loads(model.get_metadata()[KEY])


FORMATS = {
    "pt2": Format(".pt2", _write_program, _open_program, _read_program),
    "onnx": Format(".onnx", _write_onnx, _open_onnx, _read_onnx),
    "aoti": Format(".pt2", _write_aoti, _open_aoti, _read_aoti),
}


def _import(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"ONNX files need the package {error.name}: pip install 'torchfbi[export]'"
        ) from error
