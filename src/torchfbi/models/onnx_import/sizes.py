"""Arithmetic with what is known before the image is seen: sizes, axes, scales.

Exporters compute these by chains of operators on tensors (Shape, Gather, Concat, Reshape). Here
they are NumPy arrays of Python numbers, so that a network has them as constants. Only the batch
size is not a number while PyTorch traces the network: it is a symbol that adds and multiplies
like one, and so stays free where it is passed on.
"""

from __future__ import annotations

import functools
import math
import operator as python
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from torchfbi.models.images import Array
from torchfbi.models.onnx_import.registry import Call
from torchfbi.models.onnx_import.shapes import axes_of

LIMIT = 4096
"""Longer arrays are no sizes; a damaged file could ask for gigabytes of them."""


def known(value: Any) -> Array:
    """Numbers as an array of Python objects; a single one has no dimensions."""
    if isinstance(value, np.ndarray):
        return value.astype(object)
    array = np.empty((len(value),) if isinstance(value, list) else (), dtype=object)
    array[...] = value
    return array


def compute(call: Call, inputs: tuple[Any, ...]) -> tuple[Array, ...]:
    """Run one operator on known numbers.

    Raises:
        ValueError: the result is too long, or a number in it too large.
    """
    if call.operator in ("ConstantOfShape", "Expand", "Range", "Tile"):
        _check_length(call, inputs)
    result = _TABLE[call.operator](call, *inputs)
    results = tuple(map(known, result)) if isinstance(result, (list, tuple)) else (known(result),)
    for array in results:
        if array.size > LIMIT or any(isinstance(v, int) and abs(v) >= 2**63 for v in array.flat):
            raise ValueError("numbers beyond all sizes")
    return results


def can_compute(kind: str) -> bool:
    """Whether an ONNX operator type can act on known numbers."""
    return kind in _TABLE


def shape(call: Call, x: Any) -> Array:
    """The sizes of a tensor or of known numbers, or some of them."""
    sizes = list(x.shape)[call.get("start", 0) : call.get("end")]
    return known(sizes)


def _check_length(call: Call, inputs: tuple[Any, ...]) -> None:
    if call.operator == "Range":
        start, stop, step = (value.item() for value in inputs)
        length = (stop - start) / step
    elif call.operator == "Tile":
        length = inputs[0].size * math.prod(inputs[1].flat)
    else:
        length = math.prod(inputs[-1].flat)
    if length > LIMIT:
        raise ValueError(f"{length} numbers, too many for sizes")


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda call, *inputs: functools.reduce(np.frompyfunc(function, 2, 1), inputs)


def _one(function: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda call, x: np.frompyfunc(function, 1, 1)(x)


def _divide(a: Any, b: Any) -> Any:
    """ONNX rounds quotients of whole numbers towards zero; of sizes that is the floor."""
    whole = not any(isinstance(v, (float, torch.SymFloat)) for v in (a, b))
    if not whole:
        return a / b
    exact = isinstance(a, int) and isinstance(b, int)
    return -(-a // b) if exact and (a < 0) != (b < 0) else a // b


def _cast(call: Call, x: Array) -> Any:
    to = {1: torch.sym_float, 10: torch.sym_float, 11: torch.sym_float, 9: bool}
    return np.frompyfunc(to.get(call.get("to"), torch.sym_int), 1, 1)(x)


def _unsqueeze(call: Call, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(axes_of(call, axes) or ()))


def _squeeze(call: Call, x: Array, axes: Array | None = None) -> Array:
    dims = axes_of(call, axes)
    return np.squeeze(x, None if dims is None else tuple(dims))


def _slice(call: Call, x: Array, *numbers: Array | None) -> Array:
    names = ("starts", "ends", "axes", "steps")
    given: dict[str, Any] = {
        name: [int(n) for n in array.flat]
        for name, array in zip(names, numbers, strict=False)
        if array is not None
    }
    given = given or call.attributes
    starts = given["starts"]
    axes, steps = given.get("axes", range(len(starts))), given.get("steps", [1] * len(starts))
    window = [slice(None)] * x.ndim
    for axis, *ends in zip(axes, starts, given["ends"], steps, strict=True):
        window[axis] = slice(*ends)
    return x[tuple(window)]


def _split(call: Call, x: Array, sizes: Array | None = None) -> list[Array]:
    axis = call.get("axis", 0)
    parts = call.get("split") if sizes is None else sizes.tolist()
    parts = parts or [-(-x.shape[axis] // call.outputs)] * call.outputs
    return np.split(x, np.cumsum(parts)[:-1].astype(int), axis)


def _fill(call: Call, sizes: Array) -> Array:
    value = call.get("value")
    return np.full(sizes.astype(int), 0 if value is None else value.item(), dtype=object)


def _expand(call: Call, x: Array, sizes: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(sizes.tolist())))


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(call: Call, x: Array, axes: Array | None = None) -> Any:
        dims = axes_of(call, axes)
        if dims not in (None, [], [0], [-1]) or x.ndim > 1:
            raise ValueError("a table of sizes")
        total = functools.reduce(function, x.flat)
        return known([total]) if call.get("keepdims", 1) else known(total)

    return reduce


_TABLE: dict[str, Callable[..., Any]] = {
    "Add": _each(python.add),
    "And": _each(lambda a, b: a and b),
    "Cast": _cast,
    "Ceil": _one(math.ceil),
    "Concat": lambda call, *inputs: np.concatenate(inputs, call.get("axis")),
    "ConstantOfShape": _fill,
    "Div": _each(_divide),
    "Equal": _each(python.eq),
    "Expand": _expand,
    "Floor": _one(math.floor),
    "Gather": lambda call, x, i: np.take(x, i.astype(np.int64), call.get("axis", 0)),
    "Greater": _each(python.gt),
    "Identity": lambda call, x: x,
    "Less": _each(python.lt),
    "Max": _each(max),
    "Min": _each(min),
    "Mod": _each(python.mod),
    "Mul": _each(python.mul),
    "Neg": _one(python.neg),
    "Not": _one(python.not_),
    "Or": _each(lambda a, b: a or b),
    "Range": lambda call, a, b, step: np.array(
        range(a.item(), b.item(), step.item()), dtype=object
    ),
    "ReduceMax": _reduce(max),
    "ReduceMin": _reduce(min),
    "ReduceProd": _reduce(python.mul),
    "ReduceSum": _reduce(python.add),
    "Reshape": lambda call, x, sizes: x.reshape(
        [x.shape[i] if n == 0 else n for i, n in enumerate(sizes.tolist())]
    ),
    "Shape": shape,
    "Size": lambda call, x: functools.reduce(python.mul, x.shape, 1),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _one(math.sqrt),
    "Squeeze": _squeeze,
    "Sub": _each(python.sub),
    "Tile": lambda call, x, repeats: np.tile(x, repeats.astype(int)),
    "Transpose": lambda call, x: np.transpose(x, call.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": lambda call, c, x, y: np.frompyfunc(lambda c, x, y: x if c else y, 3, 1)(c, x, y),
}
