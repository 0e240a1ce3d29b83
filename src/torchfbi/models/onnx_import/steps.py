"""What a network in an ONNX file is made of: calls of operators, in parts named after the nodes."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchfbi.errors import ModelError, first_line
from torchfbi.models.onnx_import import sizes
from torchfbi.models.onnx_import.reading import Node
from torchfbi.models.onnx_import.registry import Call, Operator


class Operation(NamedTuple):
    """One call of the forward pass: values by name in, values by name out."""

    run: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    node: Node


class Layer(NamedTuple):
    """A node that computes with tensors.

    Args:
        call: what the operator is told besides its inputs.
        operator: its function.
        fixed: by position the inputs that are known beforehand: numbers, or the ``Weight`` of
            the scope's parameter.
        arity: how many inputs there are.
    """

    call: Call
    operator: Operator
    fixed: dict[int, Any]
    arity: int

    def run(self, scope: nn.Module, computed: tuple[Any, ...]) -> Any:
        rest = iter(computed)
        inputs: list[Any] = []
        for i in range(self.arity):
            if i not in self.fixed:
                inputs.append(_as_asked(next(rest), i in self.operator.numbers))
            elif isinstance(self.fixed[i], Weight):
                inputs.append(scope.get_parameter(self.fixed[i].name))
            else:
                inputs.append(self.fixed[i])
        return self.operator.function(self.call, *inputs)


class Weight(NamedTuple):
    """The name of a parameter."""

    name: str


class Scope(nn.Module):
    """A part of the network: the nodes of one name, and parts within."""

    def forward(self, layer: Layer, *computed: Any) -> Any:
        """The results of one of its nodes. PyTorch notes that they were computed in here."""
        return layer.run(self, computed)


class SizeStep(NamedTuple):
    """One node that computes with sizes."""

    call: Call
    fixed: dict[int, Any]
    arity: int

    def __call__(self, *computed: Any) -> tuple[Any, ...]:
        rest = iter(computed)
        inputs = (self.fixed[i] if i in self.fixed else next(rest) for i in range(self.arity))
        return sizes.compute(self.call, tuple(inputs))


def _as_asked(value: Any, number: bool) -> Any:
    """Sizes where a tensor is expected: a number, or a small tensor."""
    if number or isinstance(value, Tensor):
        return value
    return value.item() if value.ndim == 0 else torch.tensor(value.tolist())


DEEPEST = 32
"""How many parts of a name are modules within modules; PyTorch walks through them by recursion."""


def find_scope(network: nn.Module, name: str) -> nn.Module:
    """The submodule at the path that a node's name spells."""
    scope = network
    for part in name.split(".", DEEPEST):
        plain = re.sub(r"\W+", "_", part) or "_"
        while hasattr(scope, plain) and plain not in scope._modules:
            plain += "_"
        if plain not in scope._modules:
            scope.add_module(plain, Scope())
        scope = scope.get_submodule(plain)
    return scope


def misfit(node: Node, error: Exception) -> ModelError:
    return ModelError(f"{node.operator} {node.name!r} cannot be run: {first_line(error)}.")
