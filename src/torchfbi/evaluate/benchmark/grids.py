"""The grid pointing game: several images in one, and the network is asked for one of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from torchfbi.errors import ModelError, SettingsError
from torchfbi.evaluate.benchmark.cutouts import cutouts
from torchfbi.evaluate.benchmark.predict import check, prepare, probabilities, takes
from torchfbi.evaluate.benchmark.scene import Scene, Suite
from torchfbi.models import Model
from torchfbi.models.images import Photo

PROBED = 2
"""Cells of a grid that are asked for."""

PHOTOS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
"""Photos of one thing each that scikit-image ships."""

SURE = 0.25
"""The probability from which a photo goes into a grid: .39 is the most that the cat gets."""

CUTOUTS = 48
"""Composites that grids are drawn from."""


class _Layout(NamedTuple):
    """Where the cells' edges lie, n + 1 numbers for the rows and for the columns."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def box(self, cell: int) -> tuple[slice, slice]:
        row, column = divmod(cell, len(self.columns) - 1)
        return slice(*self.rows[row : row + 2]), slice(*self.columns[column : column + 2])


def grids(
    model: Model,
    n: int = 2,
    count: int = 24,
    seed: int = 0,
    tiles: Sequence[Scene] | None = None,
) -> Suite:
    """Grids of n x n images that the network recognises, each of another class.

    The localisation metric of Böhle, Fritz & Schiele 2021, "Convolutional Dynamic Alignment
    Networks for Interpretable Classifications", section 4: what speaks for a class must lie in the
    cell that shows it. Where the images have masks, the mask also knows the object within the cell.

    Every cell has the size of the network's input, so that the grid is n times as large; where
    the network takes no such size, the grid is shrunk to its input. Of grid g the cells 2g and
    2g + 1 (modulo n * n, row by row) are asked for, a scene each, so that all positions are asked
    for equally often.

    Args:
        model: a classifier of photos.
        n: cells in a row, at least 2.
        count: how many grids; there are twice as many scenes.
        seed: of the composites and of their arrangement.
        tiles: the scenes in the cells; by default those of ``cutouts(model, 48, seed)``.

    Raises:
        ModelError: the network recognises fewer than n * n different classes.
        InputError, SettingsError, TrainingModeError: as for ``cutouts``, and n below 2.
    """
    check(model, count, seed)
    if n < 2:
        raise SettingsError(f"n={n}: a grid has at least 2 cells in a row.")
    scenes = cutouts(model, CUTOUTS, seed).scenes if tiles is None else tuple(tiles)
    what = "images of one class each that the network recognises"
    return _suite(f"grid{n}", what, model, scenes, n, count, seed)


def photo_grids(model: Model, count: int = 12, seed: int = 0) -> Suite:
    """Grids of 2 x 2 photos that scikit-image ships, otherwise as ``grids``; without object masks.

    Args:
        model, count, seed: as for ``grids``.

    Raises:
        ModelError: scikit-image is not installed, or the network sees fewer than four different
            classes in its photos.
        InputError, SettingsError, TrainingModeError: as for ``grids``.
    """
    check(model, count, seed)
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise ModelError("the photos are in scikit-image: pip install 'torchfbi[demo]'")
    folder = Path(package.origin).parent / "data"
    inputs = [model.placed(model.preprocess(Photo.read(folder / name))[0]) for name in PHOTOS]
    tops = zip(*probabilities(model, inputs).max(1), strict=True)
    tiles = [
        Scene(f"{model.labels[int(top)]} ({name})", model.preprocess.denormalise(x), x, int(top))
        for name, x, (p, top) in zip(PHOTOS, inputs, tops, strict=True)
        if p >= SURE
    ]
    return _suite("photo-grid", "photos from scikit-image", model, tiles, 2, count, seed)


def _suite(
    name: str, what: str, model: Model, tiles: Sequence[Scene], n: int, count: int, seed: int
) -> Suite:
    classes = len({tile.target for tile in tiles})
    if classes < n * n:
        raise ModelError(
            f"{model.name} sees {classes} different classes in the {len(tiles)} images for the "
            f"cells: a grid of {n} x {n} needs {n * n}."
        )
    height, width = model.preprocess.size
    full = takes(model, (n * height, n * width))
    size = (n * height, n * width) if full else (height, width)
    edges = [tuple(round(i * side / n) for i in range(n + 1)) for side in size]
    layout = _Layout(*edges)
    rng = np.random.default_rng(seed)
    scenes: list[Scene] = []
    for grid in range(count):
        chosen = _different(rng, tiles, n * n)
        scenes += _scenes(model, f"grid {grid}", chosen, layout, PROBED * grid)
    description = (
        f"Grids of {n} x {n} {what}. {PROBED} cells of each are asked for, in turn. The cells are "
        f"{'as large as' if full else 'shrunk to fit together into'} the network's usual input."
    )
    return Suite(name, description, model, tuple(scenes))


def _different(rng: np.random.Generator, tiles: Sequence[Scene], cells: int) -> list[Scene]:
    """Tiles at random, of different classes."""
    by_class: dict[int, Scene] = {}
    for index in rng.permutation(len(tiles)):
        by_class.setdefault(tiles[index].target, tiles[index])
    return list(by_class.values())[:cells]


def _scenes(
    model: Model, name: str, tiles: Sequence[Scene], layout: _Layout, first: int
) -> list[Scene]:
    picture = np.zeros((layout.rows[-1], layout.columns[-1], 3), np.uint8)
    for cell, tile in enumerate(tiles):
        window = picture[layout.box(cell)]
        window[:] = _resized(Image.fromarray(tile.picture), window.shape)
    x = prepare(model, picture)
    scenes = []
    probed = [(first + i) % len(tiles) for i in range(PROBED)]
    for cell, other in zip(probed, probed[1:] + probed[:1], strict=True):
        row, column = divmod(cell, len(layout.columns) - 1)
        inside = torch.zeros(picture.shape[:2], dtype=torch.bool)
        inside[layout.box(cell)] = True
        tile = tiles[cell]
        scenes.append(
            Scene(
                name=f"{name}, row {row}, column {column}: {tile.name}",
                picture=picture,
                x=x,
                target=tile.target,
                mask=None if tile.mask is None else _placed(tile.mask, layout, cell),
                cell=inside,
                rival=tiles[other].target,
            )
        )
    return scenes


def _resized(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _placed(mask: Tensor, layout: _Layout, cell: int) -> Tensor:
    """The tile's mask in its cell, where the object covers at least half of a pixel."""
    placed = torch.zeros(layout.rows[-1], layout.columns[-1], dtype=torch.bool)
    window = placed[layout.box(cell)]
    cover = Image.fromarray(mask.byte().mul(255).numpy())
    window[:] = torch.from_numpy(_resized(cover, tuple(window.shape))) > 127
    return placed
