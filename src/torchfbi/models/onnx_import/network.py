"""The module that runs an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from torchfbi.errors import ModelError, first_line
from torchfbi.models.onnx_import import memory
from torchfbi.models.onnx_import.builder import Builder
from torchfbi.models.onnx_import.reading import File
from torchfbi.models.onnx_import.recognise import recognise
from torchfbi.models.onnx_import.steps import Operation, misfit


class Network(nn.Module):
    """Runs the nodes in order, and lets go of every value after its last use.

    What does not depend on the image is computed once, when the module is made.

    Raises:
        ModelError: operators that are not supported, all of them listed; or a node that does not
            fit its inputs.
    """

    def __init__(self, file: File) -> None:
        super().__init__()
        try:
            recognise(file)
        except (IndexError, TypeError, ValueError) as error:
            raise ModelError("damaged: a node lacks inputs or has wrong ones.") from error
        self.image, self.outputs = file.image, file.outputs
        self.steps = Builder(self, file).steps
        self.last_use = {name: i for i, step in enumerate(self.steps) for name in step.inputs}

    def forward(self, x: Tensor) -> Any:
        """The file's output; of several a dict by name."""
        values = {self.image: x}
        for _ in self.run(values):
            pass
        results = {name: values[name] for name in self.outputs}
        return results if len(results) > 1 else results[self.outputs[0]]

    def run(self, values: dict[str, Any]) -> Iterator[Operation]:
        """Compute all values; yields each step just before it is taken."""
        for i, step in enumerate(self.steps):
            yield step
            results = step.run(*(values[name] for name in step.inputs))
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(step.outputs, results, strict=False))
            for name in step.outputs[len(results) :]:
                if name in self.last_use or name in self.outputs:
                    raise ValueError(f"its second result {name!r} is not supported")
            for name in step.inputs:
                if self.last_use[name] == i and name not in self.outputs:
                    values.pop(name, None)

    def check(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Run on shapes alone, without memory or computation.

        Returns:
            The shapes of the outputs by name.

        Raises:
            ModelError: naming the node that does not fit its inputs or asks for too much memory.
        """
        step = None
        try:
            with memory.shapes_only():
                values: dict[str, Any] = {self.image: torch.empty(shape)}
                for taken in self.run(values):
                    step = taken
        except Exception as error:
            raise misfit(step.node, error) if step else ModelError(first_line(error)) from error
        for name in self.outputs:
            if not isinstance(values[name], Tensor):
                raise ModelError(f"the output {name!r} does not depend on the image.")
        return {name: tuple(values[name].shape) for name in self.outputs}
