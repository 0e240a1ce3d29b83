"""Objects cut out with their alpha channel, laid on textures: their pixels are known exactly."""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from torchfbi.errors import ModelError
from torchfbi.evaluate.benchmark.predict import CHUNK, RECOGNISED, check, prepare, probabilities
from torchfbi.evaluate.benchmark.scene import Scene, Suite
from torchfbi.evaluate.benchmark.textures import texture
from torchfbi.models import Model

LOST = 0.02
"""Below this probability the class is gone with the object."""

PER_CLASS = 2
TRIES = 6
"""Textures, places and sizes that are tried for each cut-out."""


class Composite(NamedTuple):
    """A cut-out on a background.

    Args:
        picture: uint8 (H, W, 3).
        background: the same without the cut-out.
        mask: where the cut-out covers at least half of a pixel, bool (H, W).
    """

    picture: npt.NDArray[np.uint8]
    background: npt.NDArray[np.uint8]
    mask: Tensor


@cache
def files() -> tuple[str, ...]:
    """The names of the shipped cut-outs (see NOTICE.txt beside them), sorted."""
    folder = resources.files(__package__) / "pictures"
    return tuple(sorted(f.name for f in folder.iterdir() if f.name.endswith(".webp")))


def cutout(file: str) -> Image.Image:
    """One of ``files()``, RGBA, 256 x 256."""
    with (resources.files(__package__) / "pictures" / file).open("rb") as opened:
        return Image.open(opened).convert("RGBA")


def compose(
    rng: np.random.Generator, picture: Image.Image, background: npt.NDArray[np.uint8]
) -> Composite:
    """Lay a cut-out somewhere on a background, .5 to .8 of its shorter side large.

    Args:
        rng: draws size and place.
        picture: square, RGBA.
        background: (H, W, 3).
    """
    height, width = background.shape[:2]
    side = max(1, int(rng.uniform(0.5, 0.8) * min(height, width)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    small = picture.resize((side, side), Image.Resampling.LANCZOS)
    canvas = Image.fromarray(background)
    canvas.paste(small, (int(left), int(top)), small)
    mask = torch.zeros(height, width, dtype=torch.bool)
    alpha = torch.from_numpy(np.array(small.getchannel("A")))
    mask[top : top + side, left : left + side] = alpha > 127
    return Composite(np.array(canvas), background, mask)


def cutouts(model: Model, count: int = 48, seed: int = 0) -> Suite:
    """Composites that this network recognises, and loses when the cut-out is removed.

    A composite is taken if its top class has a probability above ``RECOGNISED``, and below
    ``LOST`` on the bare background; at most ``PER_CLASS`` of a class. So its evidence lies in the
    cut-out. A smaller count gives the first of the same scenes.

    Args:
        model: a classifier of photos, of any input size.
        count: how many are wanted; there are fewer where the network recognises fewer.
        seed: of textures, places and sizes, and of the order.

    Raises:
        ModelError: it recognises none: it is not trained, or on no photos.
        InputError: its output is not (N, classes).
        SettingsError, TrainingModeError: see ``predict.check``.
    """
    check(model, count, seed)
    waiting = [int(i) for i in np.random.default_rng(seed).permutation(len(files()))]
    found: list[Scene] = []
    per_class: Counter[int] = Counter()
    for attempt in range(TRIES):
        for chunk in [waiting[i : i + CHUNK] for i in range(0, len(waiting), CHUNK)]:
            drawn = {i: _drawn(model, i, (seed, i, attempt)) for i in chunk}
            for i, scene in _recognised(model, drawn):
                if per_class[scene.target] < PER_CLASS and len(found) < count:
                    per_class[scene.target] += 1
                    found.append(scene)
                    waiting.remove(i)
            if len(found) == count:
                return _suite(model, found)
    if not found:
        raise ModelError(
            f"{model.name} recognises none of the {len(files())} cut-outs: it is not trained, not "
            "on photos of everyday objects, or its preprocessing is not the one it was trained "
            "with. Take the suite 'synthetic', or a folder of your own pictures."
        )
    return _suite(model, found)


def _suite(model: Model, found: list[Scene]) -> Suite:
    description = (
        f"Cut-outs on random textures that the network recognises (p > {RECOGNISED}) and loses "
        f"(p < {LOST}) without the cut-out; the mask is the cut-out's own alpha channel."
    )
    return Suite("cutouts", description, model, tuple(found))


def _drawn(model: Model, index: int, seed: tuple[int, ...]) -> Composite:
    rng = np.random.default_rng(seed)
    background = texture(rng, model.preprocess.size)
    return compose(rng, cutout(files()[index]), background)


def _recognised(model: Model, drawn: dict[int, Composite]) -> list[tuple[int, Scene]]:
    """Those that the network recognises by the cut-out, as scenes."""
    inputs = {i: prepare(model, composite.picture) for i, composite in drawn.items()}
    tops = zip(*probabilities(model, list(inputs.values())).max(1), strict=True)
    sure = {i: int(c) for i, (p, c) in zip(drawn, tops, strict=True) if p > RECOGNISED}
    if not sure:
        return []
    bare = probabilities(model, [prepare(model, drawn[i].background) for i in sure])
    return [
        (i, _scene(model, files()[i], drawn[i], inputs[i], target))
        for (i, target), p in zip(sure.items(), bare, strict=True)
        if p[target] < LOST
    ]


def _scene(model: Model, file: str, composite: Composite, x: Tensor, target: int) -> Scene:
    return Scene(
        name=f"{model.labels[target]} ({file.removesuffix('.webp')})",
        picture=model.preprocess.denormalise(x),
        x=x,
        target=target,
        mask=composite.mask,
    )
