"""Images whose evidence is known, for any network, without a connection.

>>> suite = load_suite("cutouts", torchfbi.load("efficientnet-lite0"))
>>> suite = folder("my-photos", torchfbi.load("model.onnx"), "instances.json")
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from torchfbi.errors import SettingsError
from torchfbi.evaluate.benchmark.cutouts import cutouts
from torchfbi.evaluate.benchmark.digits import digits
from torchfbi.evaluate.benchmark.folder import folder
from torchfbi.evaluate.benchmark.grids import grids, photo_grids
from torchfbi.evaluate.benchmark.photos import photos
from torchfbi.evaluate.benchmark.scene import Batch, Scene, Suite
from torchfbi.evaluate.benchmark.synthetic import synthetic
from torchfbi.models import DEFAULT, Model, load

__all__ = [
    "OWN_MODEL",
    "SUITES",
    "Batch",
    "Scene",
    "Suite",
    "cutouts",
    "digits",
    "folder",
    "grids",
    "load_suite",
    "photo_grids",
    "photos",
    "synthetic",
]

SUITES: dict[str, Callable[..., Suite]] = {
    "cutouts": cutouts,
    "grid2": partial(grids, n=2),
    "grid3": partial(grids, n=3),
    "photo-grid": photo_grids,
    "synthetic": synthetic,
    "digits": digits,
}
"""What makes a suite: all take ``count`` and ``seed``, and first the model unless it brings its
own."""

OWN_MODEL = frozenset({"synthetic", "digits"})
"""Suites that bring their own network."""


def load_suite(
    name: str, model: Model | str | None = None, count: int | None = None, seed: int = 0
) -> Suite:
    """Make a suite.

    Args:
        name: one of ``SUITES``.
        model: the network that must recognise the scenes, or its name; the default network if
            left out. Suites in ``OWN_MODEL`` ignore it: see ``Suite.model``.
        count: how many scenes, for grids how many grids; by default what the suite holds to be
            enough.
        seed: of everything that is random in it.

    Raises:
        SettingsError: no such suite, a count below 1 or a negative seed.
        ModelError: no such model, or the suite cannot be made for it.
        InputError, TrainingModeError: see ``cutouts``.
    """
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, 1)
        hint = f"Did you mean {close[0]}? " if close else ""
        raise SettingsError(f"there is no suite {name!r}. {hint}Known are {', '.join(SUITES)}.")
    options: dict[str, Any] = {"seed": seed} | ({} if count is None else {"count": count})
    if name in OWN_MODEL:
        return SUITES[name](**options)
    if not isinstance(model, Model):
        model = load(DEFAULT if model is None else model)
    return SUITES[name](model, **options)
