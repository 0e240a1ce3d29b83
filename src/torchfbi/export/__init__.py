"""The explainer as a file that runs without torchfbi: forward pass and backward walk in one graph.

>>> from torchfbi.export import export
>>> export("efficientnet-lite0", "explainer.onnx", "onnx")
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from torchfbi.api import as_batch
from torchfbi.errors import ExportError, InputError, SettingsError, TorchFBIError, first_line
from torchfbi.explanation import several
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.export.agreement import Agreement, Loss, loss, verify
from torchfbi.export.compact import compact
from torchfbi.export.explainer import TOP_CLASS, Explainer, Inputs, Outputs, trace
from torchfbi.export.formats import FORMATS, KEY, Format
from torchfbi.export.metadata import describe
from torchfbi.export.web import EXAMPLES, write_page
from torchfbi.method.settings import Settings
from torchfbi.models import Model, load
from torchfbi.models.images import Photo
from torchfbi.system.quiet import quiet

__all__ = [
    "FORMATS",
    "KEY",
    "TARGETS",
    "TOP_CLASS",
    "Agreement",
    "Explainer",
    "Exported",
    "Inputs",
    "Loss",
    "Outputs",
    "export",
]


TARGETS = (*FORMATS, "web")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        path: the file or folder.
        to: its format.
        size: in bytes.
        batch: how many images it takes; None for any number.
        agreement: how well it agrees with the explainer that runs in Python.
        loss: of a page whose weights were rounded to half the bytes, what that costs; None where
            they are float32.
    """

    path: Path
    to: str
    size: int
    batch: int | None
    agreement: Agreement
    loss: Loss | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        agreement = self.agreement._asdict()
        return {
            "loss": None if self.loss is None else self.loss._asdict(),
            "path": str(self.path),
            "to": self.to,
            "size": self.size,
            "batch": self.batch,
            "agreement": agreement,
        }


def export(
    model: str | Model | nn.Module,
    path: str | os.PathLike[str],
    to: str,
    settings: Settings | str | None = None,
    *,
    images: Any = None,
    output: int | str | None = None,
    batch: int | None = None,
    runtime: str | os.PathLike[str] | None = None,
) -> Exported:
    """Write an explainer as one graph, and make sure that it says what the eager one says.

    Its inputs are those of ``Inputs``: image, target, k and tau where the settings use them, and
    the other inputs of a network of several. Its outputs are those of ``Outputs``: logits, values
    and support. All else in the settings is fixed. The file holds the labels, the preprocessing,
    the settings and the versions as JSON under the name ``KEY``.

    Args:
        model: as for ``explain``; its logits must be (N, classes).
        path: the file; a suffix is added where it has none. On failure what was there stays.
        to: ``pt2``: a program for ``torch.export.load``; ``onnx``: for ONNX Runtime and others;
            ``aoti``: compiled for this kind of machine, for ``aoti_load_package`` and C++;
            ``web``: a folder with a page that runs the ONNX file in the browser, of a ``Model``.
        settings: ``Settings``, or the name of a preset; ``"contrast"`` by default.
        images: what the file is verified on, as for ``explain``; a bare module needs a tensor.
            For a ``Model`` three random pictures by default, and a page's own photos. For a network
            of several inputs all of them: the first image among them is explained, the others keep
            their names.
        output: which output is explained where the network returns several.
        batch: fixes how many images it takes, which makes ``aoti`` faster; free by default, unless
            the network fixes it, or the walk through it cannot be traced for any number: then 1.
        runtime: for ``web``, the archive of ONNX Runtime Web; by default npm fetches it once.

    Raises:
        ExportError: a package is missing, the format cannot express the network, or the file
            disagrees with the eager explainer.
        InputError, ImageError, CaptureError, ModelError, SettingsError: as for ``explain``.
    """
    if to not in TARGETS:
        raise SettingsError(f"there is no format {to!r}: choose one of {', '.join(TARGETS)}.")
    if isinstance(model, str):
        model = load(model)
    if to == "web" and not isinstance(model, Model):
        raise InputError("a page needs labels and preprocessing: wrap the module in a Model.")
    if settings is None or isinstance(settings, str):
        settings = Settings.from_preset(settings or "contrast")
    if images is None:
        if not isinstance(model, Model):
            raise InputError("give images, a tensor (N, C, ...), on which the file is verified.")
        images = pictures(model.preprocess.size)
        images += [Photo.read(photo) for photo in EXAMPLES] if to == "web" else []
    module: Any = model.module if isinstance(model, Model) else model
    others: dict[str, Tensor] = {}
    if several.are_several(images):
        if to == "web":
            raise InputError("a page explains one photo: export a network of one input for it.")
        module, images, others = _split(module, images)
    x, _, _ = as_batch(model, images)
    walker = ForwardBackward(module, x, settings, output)
    _check_classifier(walker, model)
    walker(x)  # held against the network's own answer before it is traced
    batch = _images_at_once(batch, walker.graph.batch, to)
    with quiet("stdout", "stderr"):
        program, batch = _traced(walker, x, batch, others)
    shown = x
    if batch is not None:
        x, *further = (_repeated(tensor, batch) for tensor in (x, *others.values()))
        others = dict(zip(others, further, strict=True))
    kind = FORMATS["onnx" if to == "web" else to]
    target = Path(path)
    if to != "web" and not target.suffix:
        target = target.with_name(target.name + kind.suffix)
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = describe(model, walker, batch, others)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".torchfbi-") as temporary:
        part = Path(temporary) / f"explainer{kind.suffix}"
        lost = None
        with quiet("stdout", "stderr"):
            _write(kind, program, part, metadata)
            agreement = verify(kind.open(part), walker, x, batch, others)
            if to == "web":
                smaller = part.with_name("smaller.onnx")
                compact(part, smaller)
                found = loss(kind.open(smaller), walker, shown)
                part, lost = (smaller, found) if found.small else (part, None)
        if to == "web":
            write_page(part, target, metadata, None if runtime is None else Path(runtime))
        else:
            part.replace(target)
    files = [file for file in (target, *target.rglob("*")) if file.is_file()]
    return Exported(target, to, sum(file.stat().st_size for file in files), batch, agreement, lost)


def _check_classifier(walker: ForwardBackward, model: Model | nn.Module) -> None:
    """Refuse what is no classifier, or has labels of another one."""
    shape = tuple(walker.graph.logits.meta["val"].shape)
    if len(shape) != 2:
        raise ExportError(
            f"the network's output has shape {shape}: only explainers of classifiers, whose "
            "output is (N, classes), are exported."
        )
    if isinstance(model, Model):
        model.labels.check(shape[1])


def _images_at_once(asked: int | None, fixed: int | None, to: str) -> int | None:
    """How many images the file takes: as many as asked for, or as the network fixes; None for any
    number."""
    if asked is not None and (asked < 1 or fixed not in (None, asked)):
        raise InputError(
            f"batch is {asked}: it must be "
            + ("at least 1." if fixed is None else f"{fixed}, which the network fixes.")
        )
    batch = fixed if asked is None else asked
    if to == "web" and batch not in (None, 1):
        raise InputError(f"batch is {batch}: a page explains one photo at a time.")
    return batch


def _split(module: Any, inputs: several.Inputs) -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    """The module as one of its first image, that image, and the other inputs by name."""
    given = several.named(module, inputs)
    order = inputs if isinstance(inputs, dict) else given
    name = next((n for n in order if given[n].ndim > 2 and given[n].is_floating_point()), None)
    others = {other: tensor.detach() for other, tensor in given.items() if other != name}
    if name is None:
        raise InputError("none of the inputs is an image: give one of shape (N, C, ...).")
    if taken := others.keys() & set(Inputs._fields):
        raise InputError(
            f"the network's input {min(taken)!r} has the name of one that the file has anyway: "
            "give it another in the network's forward."
        )
    first = {other: tensor[:1] for other, tensor in given.items()}
    return several.of_one(module, first, name, free=True), given[name], others


def _traced(
    walker: ForwardBackward, x: Tensor, batch: int | None, others: Mapping[str, Tensor]
) -> tuple[ExportedProgram, int | None]:
    """The program, and how many images it takes: as many as asked for, or else one where no program
    takes any number."""
    for size in (batch,) if batch is not None else (None, 1):
        try:
            return trace(walker, x, size, others), size
        except TorchFBIError:
            raise
        except Exception as error:  # torch.export raises nearly anything
            reason = error
    raise ExportError(
        f"the walk through this network cannot be traced: {first_line(reason)}"
    ) from reason


def _repeated(x: Tensor, count: int) -> Tensor:
    return x[torch.arange(count, device=x.device) % len(x)]


def _write(kind: Format, program: ExportedProgram, path: Path, metadata: dict[str, Any]) -> None:
    try:
        kind.write(program, path, metadata)
    except (TorchFBIError, OSError):
        raise
    except Exception as error:  # torch's exporters raise nearly anything
        reason = first_line(error)
        raise ExportError(f"this explainer cannot be written in that format: {reason}") from error


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
