"""Several methods on the same questions: the paper's Table 1 for any image, class and network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from torchfbi.api import resolve
from torchfbi.errors import InputError, first_line
from torchfbi.evaluate import peers
from torchfbi.evaluate.benchmark.predict import probabilities
from torchfbi.evaluate.naming import check_unique, named
from torchfbi.evaluate.peers import Method
from torchfbi.explanation.fitting import fitting_tau
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.explanation.verifying import Asked, verify_maps
from torchfbi.method.evidence import density
from torchfbi.method.seeds import as_classes
from torchfbi.method.settings import PRESETS, Settings
from torchfbi.metrics import gini, morans_i
from torchfbi.models import Model, load
from torchfbi.models.images import Photo
from torchfbi.plot.compare import Drawn, Heading, compare_figure
from torchfbi.system.versions import versions
from torchfbi.verification import Verdict

SCHEMA = 1

DEFAULT_METHODS = ("fbi", "guided-backprop", "grad-cam")


@dataclass(frozen=True, eq=False)
class Cell:
    """One method's answer to one question.

    Args:
        method: its name.
        values: signed, summed over the channels, (H, W); None if it failed.
        map: the evidence, (H, W) >= 0; None if it failed.
        error: why it failed; empty otherwise.
        tau: the threshold that was taken where nothing exceeds the preset's own, which is that of
            another network; None where the method is as it says.
        verdict: whether it holds, where that was tested.
    """

    method: str
    values: Tensor | None = None
    map: Tensor | None = None
    error: str = ""
    tau: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, eq=False)
class ImageRow:
    """One image and one class.

    Args:
        photo: the name of the image.
        picture: the image as the network sees it, uint8 (H, W, 3).
        x: the same as the network takes it, (C, H, W).
        target: the class that was asked for.
        label: its name.
        probability: what the network gives it.
        cells: one a method.
        model: the network, where several are compared.
    """

    photo: str
    picture: npt.NDArray[np.uint8]
    x: Tensor
    target: int
    label: str
    probability: float
    cells: tuple[Cell, ...]
    model: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What ``compare`` found.

    Args:
        model: the network's name.
        methods: the columns.
        rows: one for each image and target.
        seed: of what is random in a method.
    """

    model: str
    methods: tuple[Method, ...]
    rows: tuple[ImageRow, ...]
    seed: int = 0

    @property
    def failures(self) -> dict[str, str]:
        """For each method that failed anywhere, the first reason."""
        found: dict[str, str] = {}
        for row in self.rows:
            for cell in row.cells:
                if cell.error:
                    found.setdefault(cell.method, cell.error)
        return found

    def plot(self, *, over_photo: bool = False, dark: bool = False) -> Figure:
        """The figure: a row a question, a column a method.

        Args:
            over_photo: draw all maps over the photo; otherwise signals, as those of FBI and
                guided backprop, have a signed scale on the plain page.
            dark: light text on a dark page.
        """
        questions = [
            Heading(r.picture, r.label, f"{r.probability:.1%}{r.model and f' by {r.model}'}")
            for r in self.rows
        ]
        return compare_figure(
            questions,
            [self._answers(row, over_photo) for row in self.rows],
            [method.name for method in self.methods],
            "Which pixels speak for the class?",
            "  ·  ".join([self.model, *dict.fromkeys(row.photo for row in self.rows)]),
            dark=dark,
        )

    def _answers(self, row: ImageRow, over_photo: bool) -> list[Drawn]:
        answers = []
        for method, cell in zip(self.methods, row.cells, strict=True):
            if cell.values is None or cell.map is None:
                answers.append(Drawn("failed", None, cell.error))
                continue
            note = f"support {density(cell.map[None]).item():.1%}"
            note += "" if cell.tau is None else f", τ = {cell.tau:g}"
            if method.reduction == "magnitude" and not over_photo:
                answers.append(Drawn("signal", cell.values.numpy(), note))
            else:
                answers.append(Drawn("evidence", cell.map.numpy(), note))
        return answers

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON values."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "seed": self.seed,
            "versions": versions(),
            "methods": [
                {"name": m.name, "family": m.family, "reduction": m.reduction, "source": m.source}
                for m in self.methods
            ],
            "rows": [
                {
                    "photo": row.photo,
                    "model": row.model or self.model,
                    "target": row.target,
                    "label": row.label,
                    "probability": row.probability,
                    "methods": [_described(cell) for cell in row.cells],
                }
                for row in self.rows
            ],
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The maps as arrays, for ``numpy.savez``.

        Returns:
            ``maps`` and ``values`` (rows, methods, H, W) float32, NaN where a method failed;
            ``methods`` and ``photos``, their names; ``targets`` (rows,).
        """
        size = self.rows[0].picture.shape[:2]
        nothing = np.full(size, np.nan, np.float32)

        def stacked(parts: list[list[Tensor | None]]) -> npt.NDArray[np.float32]:
            return np.array(
                [[nothing if p is None else p.float().numpy() for p in row] for row in parts]
            )

        return {
            "maps": stacked([[cell.map for cell in row.cells] for row in self.rows]),
            "values": stacked([[cell.values for cell in row.cells] for row in self.rows]),
            "methods": np.array([method.name for method in self.methods]),
            "photos": np.array([row.photo for row in self.rows]),
            "targets": np.array([row.target for row in self.rows]),
        }


def compare(
    model: str | Model,
    images: Any,
    methods: Sequence[str | Settings | Method] = DEFAULT_METHODS,
    targets: Sequence[str | int | None] = (None,),
    *,
    seed: int = 0,
    verify: bool = False,
) -> Comparison:
    """Ask several methods the same questions: every image for every target.

    >>> compare("efficientnet-lite0", "cat.jpg", ["fbi", "grad-cam"], ["tabby cat", "top2"]).plot()

    A method that fails on this network has cells that say why; the others are there. A preset's own
    tau, such as the paper's, gives way to one that fits where nothing exceeds it; cells say so.

    Args:
        model: the network, or its name.
        images: one photo or a list of them: ``Photo``, or what ``Photo.read`` takes.
        methods: as for ``torchfbi.evaluate.peers.find``.
        targets: class numbers, names, ``"top2"`` for the second most probable class, or None for
            the most probable one.
        seed: of what is random in a method.
        verify: test on the image whether each method's map holds; see docs/verify.md.

    Raises:
        SettingsError: no such method, none, or two of one name.
        ImageError: a photo cannot be read.
        TargetError: no such class.
        ModelError: no such network.
        InputError: no image, or the network is no classifier.
    """
    columns = tuple(map(named, methods))
    check_unique("method", [method.name for method in columns])
    check_unique("target", [str(target) for target in targets])
    loaded = load(model) if isinstance(model, str) else model
    rows = []
    for image in images if isinstance(images, list | tuple) else [images]:
        photo = image if isinstance(image, Photo) else Photo.read(image)
        asked = [_row(loaded, photo, target, columns, seed) for target in targets]
        rows += [_verified(loaded, row, columns, seed) for row in asked] if verify else asked
    if not rows:
        raise InputError("there is no image to compare the methods on.")
    return Comparison(loaded.name, columns, tuple(rows), seed)


def side_by_side(found: Sequence[Comparison]) -> Comparison:
    """Comparisons of the same images by several networks as one, whose answers to an image follow
    each other.

    Args:
        found: of the same images, targets and methods.
    """
    several = [[replace(row, model=one.model) for row in one.rows] for one in found]
    rows = tuple(row for together in zip(*several, strict=True) for row in together)
    return replace(found[0], model=" and ".join(one.model for one in found), rows=rows)


def _row(
    model: Model, photo: Photo, target: str | int | None, methods: tuple[Method, ...], seed: int
) -> ImageRow:
    x = model.placed(model.preprocess(photo)[0])
    answer = probabilities(model, [x])
    model.labels.check(answer.shape[1])
    chosen = resolve(target, model.labels, 1)
    number = int(as_classes(chosen(answer) if callable(chosen) else chosen, answer))
    return ImageRow(
        photo=photo.name,
        picture=model.preprocess.denormalise(x),
        x=x,
        target=number,
        label=model.labels[number],
        probability=answer[0, number].item(),
        cells=tuple(_cell(model, x[None], number, method, seed) for method in methods),
    )


def _verified(model: Model, row: ImageRow, methods: tuple[Method, ...], seed: int) -> ImageRow:
    """The row with a verdict in each of its cells."""
    cells = []
    for method, cell in zip(methods, row.cells, strict=True):
        ranking = cell.map if method.reduction == "magnitude" else cell.values
        if ranking is not None:
            asked = Asked(model.module, row.x[None])
            target = torch.tensor([row.target])
            (verdict,) = verify_maps(
                asked, ranking[None], target, model.labels.__getitem__, seed=seed
            )
            cell = replace(cell, verdict=verdict)
        cells.append(cell)
    return replace(row, cells=tuple(cells))


def _cell(model: Model, x: Tensor, target: int, method: Method, seed: int) -> Cell:
    try:
        values = peers.attribute(method, model.module, x, target, seed)
        tau = None if values.any() else _fitting(method, model, x, target)
        if tau is not None:
            assert method.settings is not None
            fitted = peers.find(method.settings.override(tau=tau))
            values = peers.attribute(fitted, model.module, x, target, seed)
        total, found = values.sum(1)[0].float().cpu(), method.to_maps(values)[0].cpu()
        return Cell(method.name, total, found, tau=tau)
    except Exception as error:  # of a library or of the user's own network: a cell as well
        return Cell(method.name, error=first_line(error))


def _fitting(method: Method, model: Model, x: Tensor, target: int) -> float | None:
    """A tau that something exceeds here, in place of a preset's own; one that was chosen stays."""
    settings = method.settings
    if settings is None or not settings.tau:
        return None
    if settings.preset not in PRESETS or settings.tau != Settings.from_preset(settings.preset).tau:
        return None
    walker = ForwardBackward(model.module, x, settings)
    return fitting_tau(walker, x, torch.tensor([target], device=x.device))


def _described(cell: Cell) -> dict[str, Any]:
    if cell.map is None:
        return {"method": cell.method, "error": cell.error, "tau": None, "verdict": None}
    facts = {"support": density, "gini": gini, "morans_i": morans_i}
    numbers = {name: fact(cell.map[None]).item() for name, fact in facts.items()}
    known = {name: None if value != value else value for name, value in numbers.items()}
    verdict = cell.verdict and cell.verdict.to_dict()
    return {"method": cell.method, "error": None, "tau": cell.tau, **known, "verdict": verdict}
