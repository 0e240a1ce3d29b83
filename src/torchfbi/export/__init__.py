"""The explainer as a file that runs without torchfbi: forward pass and backward walk in one graph.

>>> from torchfbi.export import export
>>> export("efficientnet-lite0", "explainer.onnx", "onnx")
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from torchfbi.api import as_batch
from torchfbi.errors import ExportError, InputError, SettingsError
from torchfbi.export.agreement import Agreement, verify
from torchfbi.export.explainer import TOP_CLASS, Answer, Explainer, Question, trace
from torchfbi.export.formats import FORMATS, KEY, quiet
from torchfbi.export.metadata import describe
from torchfbi.images import Photo
from torchfbi.models import Model, load
from torchfbi.settings import Settings
from torchfbi.walk import ForwardBackward

__all__ = [
    "FORMATS",
    "KEY",
    "TOP_CLASS",
    "Agreement",
    "Answer",
    "Explainer",
    "Exported",
    "Question",
    "export",
]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: the file.
        to: its format.
        size: in bytes.
        agreement: how well it agrees with the explainer that runs in Python.
    """

    path: Path
    to: str
    size: int
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        agreement = self.agreement._asdict()
        return {"path": str(self.path), "to": self.to, "size": self.size, "agreement": agreement}


def export(
    model: str | Model | nn.Module,
    path: str | os.PathLike[str],
    to: str,
    settings: Settings | str | None = None,
    *,
    images: Any = None,
    output: int | str | None = None,
) -> Exported:
    """Write an explainer as one graph, and make sure that it says what the eager one says.

    Its inputs are those of ``Question``: image, target, k and, where the settings have one, the
    threshold; its outputs those of ``Answer``: logits, values and support. All else in the
    settings is fixed. The batch is free unless the network fixes it. The file holds the labels,
    the preprocessing, the settings and the versions as JSON under the name ``KEY``.

    Args:
        model: as for ``explain``; its logits must be (N, classes).
        path: the file; a suffix is added where it has none. Nothing is left of it on failure.
        to: ``pt2``: a program for ``torch.export.load``; ``onnx``: for ONNX Runtime and others;
            ``aoti``: compiled for this kind of machine, for ``aoti_load_package`` and C++.
        settings: ``Settings``, or the name of a preset; ``"contrast"`` by default.
        images: what the file is verified on, as for ``explain``; a bare module needs a tensor.
            For a ``Model`` three random pictures by default.
        output: which output is explained where the network returns several.

    Raises:
        ExportError: a package is missing, the format cannot express the network, or the file
            disagrees with the eager explainer.
        InputError, ImageError, CaptureError, ModelError, SettingsError: as for ``explain``.
    """
    if to not in FORMATS:
        raise SettingsError(f"there is no format {to!r}: choose one of {', '.join(FORMATS)}.")
    if isinstance(model, str):
        model = load(model)
    if settings is None or isinstance(settings, str):
        settings = Settings.from_preset(settings or "contrast")
    if images is None:
        if not isinstance(model, Model):
            raise InputError("give images, a tensor (N, C, ...), on which the file is verified.")
        images = pictures(model.preprocess.size)
    x, _, _ = as_batch(model, images)
    module = model.module if isinstance(model, Model) else model
    walker = ForwardBackward(module, x, settings, output)
    if walker.graph.logits.meta["val"].ndim != 2:
        shape = tuple(walker.graph.logits.meta["val"].shape)
        raise ExportError(
            f"the network's output has shape {shape}: only explainers of classifiers, whose "
            "output is (N, classes), are exported."
        )
    if walker.graph.batch is not None:
        x = x[: walker.graph.batch]
    target = Path(path)
    target = target if target.suffix else target.with_suffix(FORMATS[to].suffix)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{FORMATS[to].suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            program = trace(walker, x)
            FORMATS[to].write(program, part, describe(model, walker))
            agreement = verify(FORMATS[to].open(part), walker, x)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return Exported(target, to, target.stat().st_size, agreement)


def pictures(size: tuple[int, int]) -> list[Photo]:
    """Three random pictures with structure at every scale; the same in every call.

    Args:
        size: height and width in pixels.
    """
    random = np.random.default_rng(0)
    photos = []
    for number in range(3):
        total = np.zeros((*size, 3))
        for scale in (1, 4, 16, 64):
            coarse = random.normal(size=(-(-size[0] // scale), -(-size[1] // scale), 3))
            fine = coarse.repeat(scale, 0).repeat(scale, 1)[: size[0], : size[1]]
            total += fine * scale**0.5
        low, high = total.min(), total.max()
        pixels = ((total - low) * (255 / (high - low))).astype(np.uint8)
        photos.append(Photo(pixels, f"random picture {number + 1}"))
    return photos
