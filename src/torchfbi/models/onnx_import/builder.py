"""From a file's nodes to the steps of the forward pass."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from torchfbi.errors import ModelError
from torchfbi.models.onnx_import import memory, sizes
from torchfbi.models.onnx_import.reading import File, Node
from torchfbi.models.onnx_import.registry import Call, find
from torchfbi.models.onnx_import.steps import Layer, Operation, SizeStep, Weight, find_scope, misfit


class Builder:
    """Sorts the nodes: known now, a size, or a layer."""

    def __init__(self, network: nn.Module, file: File) -> None:
        self.network, self.file = network, file
        self.constants: dict[str, Any] = dict(file.constants)
        self.parameters: dict[str, nn.Parameter] = {}
        self.sizes: set[str] = set()
        self.entries = 0
        self.steps: list[Operation] = []
        self._check_operators()
        for node in file.nodes:
            try:
                self._add(node)
            except ModelError:
                raise
            except Exception as error:
                raise misfit(node, error) from error
        for name in file.outputs:
            if name in self.constants or name in self.sizes or name == file.image:
                raise ModelError(f"the output {name!r} is not computed from the image.")

    def _check_operators(self) -> None:
        missing: dict[str, list[str]] = {}
        for node in self.file.nodes:
            if not (node.operator == "Constant" or find(node.operator)
                    or sizes.can_compute(node.operator)):  # fmt: skip
                missing.setdefault(node.operator, []).append(node.name)
        if missing:
            rows = "; ".join(f"{kind} (at {', '.join(at)})" for kind, at in missing.items())
            raise ModelError(f"{len(missing)} operator(s) are not supported: {rows}.")

    def _add(self, node: Node) -> None:
        call = Call(node.operator, self.file.opset, node.attributes,
                    len(node.outputs), self.file.shape[0] if self.file.shape else None)  # fmt: skip
        names = [name for name in node.inputs if name]
        fixed = {i: self.constants.get(name) for i, name in enumerate(node.inputs)
                 if not name or name in self.constants}  # fmt: skip
        if node.operator == "Constant":
            self.constants[node.outputs[0]] = _constant(node)
        elif self._is_size(node, names):
            known = {i: None if v is None else sizes.known(v) for i, v in fixed.items()}
            step = SizeStep(call, known, len(node.inputs))
            if len(fixed) == len(node.inputs):
                for name, value in zip(node.outputs, step(), strict=False):
                    self.constants[name] = _typed(value)
            else:
                self.sizes.update(node.outputs)
                self._append(step, node, fixed)
        elif len(fixed) == len(node.inputs):
            self._compute(call, node)
        else:
            self._append(self._layer(call, node, fixed), node, fixed)

    def _append(self, run: Any, node: Node, fixed: dict[int, Any]) -> None:
        computed = tuple(name for i, name in enumerate(node.inputs) if i not in fixed)
        self.steps.append(Operation(run, computed, node.outputs, node))

    def _is_size(self, node: Node, names: list[str]) -> bool:
        if node.operator in ("Shape", "Size"):
            return True
        arrays = [self.constants[name] for name in names if name in self.constants]
        if len(arrays) + sum(name in self.sizes for name in names) < len(names):
            return False
        if not sizes.can_compute(node.operator) or any(a.size > sizes.LIMIT for a in arrays):
            return False
        if node.operator == "ConstantOfShape":
            value = node.attributes.get("value")
            return value is not None and value.dtype.kind in "iub"
        whole = all(a.dtype.kind in "iub" for a in arrays)
        if node.operator == "Range":  # of fractions it is a grid of places, as detectors have it
            return whole
        return whole or any(name in self.sizes for name in names)

    def _compute(self, call: Call, node: Node) -> None:
        """A layer of constants: run now, on shapes alone first."""
        operator = find(node.operator)
        assert operator is not None
        inputs = [
            None if not name else sizes.known(self.constants[name]) if i in operator.numbers
            else torch.from_numpy(np.array(self.constants[name]))
            for i, name in enumerate(node.inputs)
        ]  # fmt: skip
        with memory.shapes_only():
            shapes = pytree.tree_leaves(operator.function(call, *inputs))
        self.entries += sum(tensor.numel() for tensor in shapes)
        if self.entries > memory.LIMIT:
            raise ValueError("the constants take too much memory")
        results = operator.function(call, *inputs)
        results = results if isinstance(results, tuple) else (results,)
        for name, value in zip(node.outputs, results, strict=False):
            self.constants[name] = value.contiguous().numpy()

    def _layer(self, call: Call, node: Node, fixed: dict[int, Any]) -> Any:
        operator = find(node.operator)
        if operator is None:
            raise ValueError("this operator is supported for sizes only, not for images")
        scope = find_scope(self.network, node.name)
        for i, name in enumerate(node.inputs):
            if i in operator.numbers and i not in fixed and name not in self.sizes:
                raise ValueError(f"{name!r} is computed from the pixels, but must be known before")
            if (value := fixed.get(i)) is None:
                continue
            if i in operator.numbers:
                fixed[i] = sizes.known(value)
            else:
                fixed[i] = value.item() if value.ndim == 0 else self._weight(scope, name)
        layer = Layer(call, operator, fixed, len(node.inputs))
        return functools.partial(scope, layer)

    def _weight(self, scope: nn.Module, name: str) -> Weight:
        """A constant as a parameter; one that several nodes use is the same one in all scopes."""
        if name not in self.parameters:
            tensor = torch.from_numpy(np.array(self.constants[name]))
            self.parameters[name] = nn.Parameter(tensor, requires_grad=False)
        weight = Weight(f"tensor{len(scope._parameters)}")
        scope.register_parameter(weight.name, self.parameters[name])
        return weight


def _constant(node: Node) -> Any:
    (value,) = node.attributes.values()
    if isinstance(value, (int, float, list, tuple)):
        numbers = np.array(value)
        return numbers.astype(np.float32) if numbers.dtype.kind == "f" else numbers
    return value


def _typed(value: Any) -> Any:
    """Known numbers as an ordinary array again."""
    if value.size == 0:
        return value.astype(np.int64)
    array = np.array(value.tolist())
    return array.astype(np.float32) if array.dtype.kind == "f" else array
