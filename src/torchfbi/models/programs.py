"""Exported programs (``.pt2``), read without running anything that is in them.

``torch.export.load`` says of itself never to be used on what is not trusted: it unpickles, loads
compiled libraries, and evaluates texts of the file as Python (sizes, guards). So each part of the
file is held against what ``torch.export.save`` writes, and what passed goes to PyTorch in a new
archive: it reads exactly what was checked.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from torchfbi.capture.programs import concrete
from torchfbi.errors import ModelError, first_line
from torchfbi.models.files import EVERYTHING, IMAGENET, wrap
from torchfbi.models.model import Model
from torchfbi.models.onnx_import import memory
from torchfbi.models.weights import refuse_bombs

_PARTS = re.compile(
    r"[^/]+/(data/(weights|constants)/(weight_\d+|tensor_\d+|\w+_config\.json|\w+\.pt)"
    r"|data/sample_inputs/\w+\.pt|models/\w+\.json|archive_\w+|byteorder|\.data/\w+)"
    r"|serialized_\w+\.(json|pt)|version"  # the last two: up to PyTorch 2.7
)
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.(?!from_file)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.\w+|torch\.sym_\w+|_operator\.(?!\w*(call|getter))\w+"
)
_PLAIN = re.compile(r"[\w./:+-]*")  # cannot leave the place that it has in generated code
_FREE = {"metadata", "as_string", "as_strings", "torch_version"}  # only ever shown, or quoted
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}

_EXPRESSION = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Constant, ast.Name,
    ast.Load, ast.Call, ast.keyword, ast.Subscript, ast.Attribute, ast.unaryop, ast.boolop,
    ast.cmpop, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
)  # fmt: skip
_FUNCTIONS = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Max", "Min", "Mod", "Abs", "And", "Or",
    "Not", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan",
    "LessThan", "StrictGreaterThan", "GreaterThan", "floor", "ceiling", "FloorDiv", "CeilDiv",
    "CleanDiv", "IntTrueDiv", "FloatTrueDiv", "ModularIndexing", "PythonMod", "Where", "CeilToInt",
    "FloorToInt", "TruncToInt", "RoundToInt", "TruncToFloat", "ToFloat", "Identity", "min", "max",
    "abs",
}  # fmt: skip
_LONGEST = 2000  # characters of an expression; SymPy may need very long for more


def load(path: Path) -> Model:
    """An exported program (``torch.export.save``), for images of the size it was exported with.

    Raises:
        ModelError: the file is missing or damaged, or holds what could run as code.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    try:
        program: Any = torch.export.load(_checked(path))
        shape = program.graph.find_nodes(op="placeholder")[-1].meta["val"].shape
        module = program.module()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: not an exported program: {first_line(error)}") from error
    size = tuple(int(side) for side in shape[2:])
    if len(size) != 2 or int(shape[1]) not in (1, 3):
        raise ModelError(f"{path}: it takes {tuple(shape)}, not pictures (N, 1 or 3, H, W).")
    fitted = replace(IMAGENET, resize=max(size), crop=size)
    if int(shape[1]) == 1:
        fitted = replace(fitted, channels="L", mean=(0.0,), std=(1.0,))
    batch = concrete(shape[0]) or 1
    try:
        with memory.shapes_only():
            module(torch.empty(batch, int(shape[1]), *size))
    except ValueError as error:
        raise ModelError(f"{path}: {first_line(error)}.") from error
    except Exception:  # not every operator runs on shapes alone; whatever it is, wrap says it
        pass
    return wrap(module, path.name, fitted, batch, EVERYTHING)


def _checked(path: Path) -> io.BytesIO:
    """The same archive, written anew from the parts that were looked at."""
    clean = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(clean, "w") as copy:
        refuse_bombs(archive, path.stat().st_size, path)
        for part in archive.infolist():
            content = archive.read(part)
            try:
                _check(part.filename, content)
            except _RefusedError as reason:
                raise ModelError(
                    f"{path}: its part {part.filename} could run code, which is refused: {reason}."
                ) from None
            copy.writestr(part.filename, content)
    clean.seek(0)
    return clean


class _RefusedError(Exception):
    """Why a part is not read."""


def _check(name: str, content: bytes) -> None:
    if not _PARTS.fullmatch(name):
        raise _RefusedError("torch.export.save writes no such part")
    if name.endswith(".json"):
        _check_text("", json.loads(content))
    elif name.endswith(".pt"):
        if not content.startswith(b"PK"):
            raise _RefusedError("it is a bare pickle")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            refuse_bombs(archive, len(content), name)
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            raise _RefusedError(f"it needs more than tensors: {first_line(error)}") from None


def _check_text(key: str, value: Any) -> None:
    """All texts below ``value``, which stands under ``key``."""
    if key in _FREE:
        return
    if isinstance(value, dict):
        for inner, content in value.items():
            if not _PLAIN.fullmatch(inner):
                raise _RefusedError(f"the name {inner[:80]!r}")
            _check_text(inner, content)
    elif isinstance(value, list):
        for content in value:
            _check_text(key, content)
    elif key == "use_pickle" and value:
        raise _RefusedError("a tensor is pickled")
    elif isinstance(value, str):
        _check_one(key, value)


def _check_one(key: str, text: str) -> None:
    if key in ("expr_str", "guards_code"):
        _check_expression(text)
    elif key in ("in_spec", "out_spec"):
        if text and not _is_plain_tree(json.loads(text)[1]):
            raise _RefusedError("it takes or returns more than tuples, lists and dicts")
    elif key in ("target", "as_operator"):
        if not _OPERATOR.fullmatch(text):
            raise _RefusedError(f"it calls {text[:80]!r}")
    elif not _PLAIN.fullmatch(text) or text.startswith(("custom_obj", "opaque_obj")):
        raise _RefusedError(f"{key} is {text[:80]!r}")


def _is_plain_tree(tree: Any) -> bool:
    known = tree["type"] is None or tree["type"] in _CONTAINERS
    return known and all(map(_is_plain_tree, tree["children_spec"]))


def _check_expression(text: str) -> None:
    """Sizes as SymPy writes them, ``Add(Symbol('s1', positive=True), Integer(3))``, and guards as
    PyTorch does, ``L['x'].size()[0] >= 2``."""
    shown = text[:80]
    if len(text) > _LONGEST:
        raise _RefusedError(f"the expression {shown!r}... is too long")
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _RefusedError(f"{shown!r} is no expression") from None
    strings: set[int] = set()  # the constants that may be texts: names of symbols and of inputs
    for node in nodes:
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else None
            if name == "Symbol":
                strings.update(map(id, node.args))
            method = node.func.attr if isinstance(node.func, ast.Attribute) else None
            if name not in _FUNCTIONS and method not in ("size", "stride", "storage_offset"):
                raise _RefusedError(f"{shown!r} calls something")
        elif isinstance(node, ast.Subscript):
            strings.add(id(node.slice))
    for node in nodes:
        if not isinstance(node, _EXPRESSION):
            raise _RefusedError(f"{shown!r} is more than an expression of sizes")
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and not (id(node) in strings and _PLAIN.fullmatch(node.value))
        ):
            raise _RefusedError(f"{shown!r} holds a text")
