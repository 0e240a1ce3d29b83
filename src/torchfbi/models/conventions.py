"""Which preprocessing a network was trained with: the usual ones tried on photos, and how well the
network's own batch norms remember what came in.

A batch norm keeps the mean and the variance that each of its channels had in training. Photos that
are prepared as the training's were show much the same; others do not. Where a network has none,
only its answers can be compared, and a sure answer proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchfbi.capture.own import plain
from torchfbi.models.images import Photo
from torchfbi.models.keras_applications import STYLES
from torchfbi.models.model import Model
from torchfbi.models.preprocess import Preprocess

NORMS = 3
"""So many batch norms are looked at, from the image on: later ones mix everything."""

USUAL: dict[str, dict[str, Any]] = {
    "x / 255": {"mean": (0.0,) * 3, "std": (1.0,) * 3},
    "ImageNet's means": STYLES["torch"],
    "x / 127.5 - 1": STYLES["tf"],
    "0 to 255": STYLES["pixels"],
    "Caffe's": STYLES["caffe"],
}
"""The usual scalings of colour photos; Keras calls the third ``tf`` and the last ``caffe``."""


class Tried(NamedTuple):
    """A preprocessing and what came of it.

    Args:
        name: which; of the one that the network has now, ``"now"``.
        preprocess: itself.
        low, high: the range of the input over the photos.
        answers: of each photo the most probable class and its probability, where the output is
            (N, classes).
        distance: how far what the first batch norms met lies from what they remember, in their own
            standard deviations; None where there are none.
    """

    name: str
    preprocess: Preprocess
    low: float
    high: float
    answers: tuple[tuple[str, float], ...]
    distance: float | None

    @property
    def options(self) -> str:
        """What to say on the command line for it."""
        said = []
        for name in ("mean", "std"):
            numbers = getattr(self.preprocess, name)
            short = numbers[:1] if len(set(numbers)) == 1 else numbers
            said.append(f"--{name} {' '.join(f'{number:.4g}' for number in short)}")
        said += ["--bgr"] * (self.preprocess.channels == "BGR")
        said += ["--stretch"] * (self.preprocess.fit == "stretch")
        return " ".join(said)


def tried(model: Model, photos: Sequence[Photo]) -> list[Tried]:
    """What the network's own preprocessing and the usual ones give, those first that fit the batch
    norms best; where there are none, in a fixed order.

    Args:
        model: a network of photos, with its weights.
        photos: like those that it was made for, at least one.

    Raises:
        SettingsError: the network takes no preprocessed photo of that kind.
    """
    found = [_try(model, photos, "now", model.preprocess)]
    if len(model.preprocess.mean) == 3:
        for fit in ("crop", "stretch"):
            for name, scaling in USUAL.items():
                changed = replace(model.preprocess, **{"channels": "RGB", **scaling, "fit": fit})
                if changed != model.preprocess:
                    words = f"{name}, {'squeezed' if fit == 'stretch' else 'cropped'}"
                    found.append(_try(model, photos, words, changed))
    return sorted(found, key=lambda one: 0.0 if one.distance is None else one.distance)


def _try(model: Model, photos: Sequence[Photo], name: str, preprocess: Preprocess) -> Tried:
    x = model.placed(torch.stack([preprocess(photo)[0] for photo in photos]))
    with torch.no_grad(), _Norms() as norms:
        outputs = [plain(model.module(one[None])) for one in x]  # one by one: some take no more
    answers = []
    for logits in outputs:
        if isinstance(logits, Tensor) and logits.ndim == 2:
            chances = logits[0] if _adds_up(logits[0]) else logits[0].softmax(0)
            best = int(chances.argmax())
            answers.append((model.labels[best], float(chances[best])))
    low, high = float(x.min()), float(x.max())
    return Tried(name, preprocess, low, high, tuple(answers), norms.distance())


def _adds_up(answer: Tensor) -> bool:
    """Whether these are probabilities already."""
    return bool((answer >= 0).all()) and abs(float(answer.sum()) - 1) < 1e-3


class _Norms(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches the batch norms of any network, whichever way they are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._met: dict[int, tuple[Tensor, Tensor, list[Tensor]]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if "batch_norm" in function.__name__ and len(args) > 4 and args[3] is not None:
            x, _, _, mean, variance, *_ = args
            known = id(mean) in self._met
            if x.ndim == 4 and (known or len(self._met) < NORMS):
                *_, seen = self._met.setdefault(id(mean), (mean, variance, []))
                seen.append(x.mean((0, 2, 3)))
        return function(*args, **(kwargs or {}))

    def distance(self) -> float | None:
        """The root of the mean square over channels, in the remembered standard deviations, as a
        mean over the batch norms."""
        if not self._met:
            return None
        distances = [
            ((torch.stack(seen).mean(0) - mean).square() / (variance + 1e-5)).mean().sqrt()
            for mean, variance, seen in self._met.values()
        ]
        return float(torch.stack(distances).mean())
