"""The table of operators: ONNX type -> the function that calls PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar


class Call(NamedTuple):
    """What an operator is told besides its inputs.

    Args:
        operator: its ONNX type.
        opset: the version of its meaning.
        attributes: as the file has them.
        outputs: how many of its results are named.
        batch: the only batch size that the file allows, or None.
    """

    operator: str
    opset: int
    attributes: dict[str, Any]
    outputs: int
    batch: int | None

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default that the ONNX specification gives it."""
        return self.attributes.get(name, default)


Function = Callable[..., Any]
FunctionT = TypeVar("FunctionT", bound=Function)


class Operator(NamedTuple):
    """A function ``(call, *inputs) -> Tensor`` or a tuple of them.

    Args:
        function: gets None for optional inputs that are left out.
        numbers: the positions of inputs that must be known before the image is seen, from this
            opset on; they come as NumPy arrays of Python numbers. All others come as tensors,
            or as one Python number.
    """

    function: Function
    numbers: tuple[int, ...]


_TABLE: dict[str, Operator] = {}


def operator(*types: str, numbers: tuple[int, ...] = ()) -> Callable[[FunctionT], FunctionT]:
    """Register the decorated function for these ONNX operator types."""

    def register(function: FunctionT) -> FunctionT:
        for kind in types:
            _TABLE[kind] = Operator(function, numbers)
        return function

    return register


def find(kind: str) -> Operator | None:
    """The function of an ONNX operator type, or None where there is none."""
    return _TABLE.get(kind)


def supported() -> list[str]:
    """All operator types that act on tensors, sorted."""
    return sorted(_TABLE)
