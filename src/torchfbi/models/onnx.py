"""Networks in ONNX files, whatever framework they were trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from torchfbi.errors import ModelError
from torchfbi.models import onnx_import
from torchfbi.models.files import EVERYTHING, IMAGENET
from torchfbi.models.labels import Labels
from torchfbi.models.model import Model
from torchfbi.models.preprocess import Preprocess

_HEADS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "Softmax": torch.softmax,
    "LogSoftmax": torch.log_softmax,
    "Sigmoid": lambda z, axis: torch.sigmoid(z),
}
"""What makes probabilities of logits at the end of a file."""


class OnnxModule(onnx_import.Network):
    """An ONNX network that takes (N, C, H, W) and returns (N, classes).

    Args:
        file: its nodes and weights.
        channels_last: it takes (N, H, W, C), as files made from TensorFlow do.
    """

    def __init__(self, file: onnx_import.File, channels_last: bool) -> None:
        self.channels_last, head = channels_last, _take_head(file)
        super().__init__(file)
        self.head = head

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """The file's output, also where it is (N, classes, 1, 1); or a dict of outputs."""
        y = super().forward(x.permute(0, 2, 3, 1) if self.channels_last else x)
        if not isinstance(y, Tensor):
            return y
        y = y.flatten(1) if set(y.shape[2:]) == {1} else y
        if self.head is None:
            return y
        axis = self.head.attributes.get("axis", 1)
        return _HEADS[self.head.operator](y, 1 if y.ndim == 2 else axis)


def load(path: str | Path, preprocess: Preprocess | None = None) -> Model:
    """Load an image classifier from an ONNX file. Nothing in the file is run as code.

    Half and double precision are read as float32. It takes any batch size if the file leaves it
    open, or fixes it but only passes it on.

    Args:
        path: the file; weights outside it must lie in its folder.
        preprocess: what its input looks like; the file does not say. By default ImageNet's
            for three channels, 0 to 1 for one, at the file's size (224 where that is open).

    Returns:
        The model, in eval mode; its classes are numbered.

    Raises:
        ModelError: the file is damaged, no image classifier, or has operators that are not
            supported (all of them are listed); or the package ``onnx`` is missing.
    """
    path = Path(path)
    return _made(onnx_import.read(path), path, preprocess)


def loads(content: bytes, name: str) -> Model:
    """As ``load``, of what a file holds, which opens no other: all weights must be in it.

    Args:
        content: the file.
        name: what it is called.

    Raises:
        ModelError: as for ``load``.
    """
    return _made(onnx_import.parse(content, onnx_import.Origin(name, None)), Path(name), None)


def _made(file: onnx_import.File, path: Path, preprocess: Preprocess | None) -> Model:
    try:
        batch, channels, sides, channels_last = _layout(file.shape)
        assumed = EVERYTHING if preprocess is None else ()
        if preprocess is None:
            preprocess = _default(channels, sides)
        height, width = (size or side for size, side in zip(sides, preprocess.size, strict=True))
        module = OnnxModule(file, channels_last)
        image = (height, width, channels) if channels_last else (channels, height, width)
        results = module.check((batch or 1, *image))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    shape = results[file.outputs[0]]
    if len(shape) < 2:
        raise ModelError(f"{path}: its output has shape {shape}, not (N, classes).")
    module.eval().requires_grad_(False)
    return Model(module, preprocess, Labels.numbered(shape[1]), path.name, assumed)


def _take_head(file: onnx_import.File) -> onnx_import.Node | None:
    """End the file at the logits. What makes probabilities of them is to come last, behind the
    dimensions of size 1 that are dropped: there the capture finds it."""
    makers = {name: node for node in file.nodes for name in node.outputs}
    node = makers.get(file.outputs[0])
    if len(file.outputs) > 1 or node is None or node.operator not in _HEADS:
        return None
    file.outputs = (node.inputs[0],)
    return node


def _layout(
    shape: tuple[int | None, ...],
) -> tuple[int | None, int, tuple[int | None, int | None], bool]:
    """Batch, channels, height and width, and whether the channels come last."""
    if len(shape) == 4:
        batch, *rest = shape
        if all(size is None or size > 0 for size in shape):
            if rest[0] in (1, 3):
                return batch, rest[0], (rest[1], rest[2]), False
            if rest[2] in (1, 3):
                return batch, rest[2], (rest[0], rest[1]), True
            if rest[0] is None:
                return batch, 3, (rest[1], rest[2]), False
    shown = ", ".join("?" if size is None else str(size) for size in shape)
    raise ModelError(f"it takes ({shown}), not pictures (N, 1 or 3, H, W) or (N, H, W, 1 or 3).")


def _default(channels: int, sides: tuple[int | None, int | None]) -> Preprocess:
    height, width = (side or IMAGENET.size[0] for side in sides)
    enlarged = round(max(height, width) * IMAGENET.resize / IMAGENET.size[0])
    fitted = replace(IMAGENET, resize=enlarged, crop=(height, width))
    return fitted if channels == 3 else replace(fitted, channels="L", mean=(0.0,), std=(1.0,))
