"""Grids: every cell shows its own image, and masks stand where the objects do."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from torchfbi.errors import ModelError, SettingsError
from torchfbi.evaluate.benchmark import Scene, grids, photo_grids
from torchfbi.evaluate.benchmark.predict import prepare
from torchfbi.models import Labels, Model
from torchfbi.models.preprocess import Preprocess

SIDE = 20


class AnySize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).repeat(1, 4)


def network(module: nn.Module) -> Model:
    preprocess = Preprocess(SIDE, SIDE, (0.5,) * 3, (0.5,) * 3)
    return Model(module.eval(), preprocess, Labels.numbered(12), "toy")


ANY_SIZE = network(AnySize())
FIXED = network(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 12)))


def tiles(model: Model, count: int = 12) -> list[Scene]:
    """Tile i has class i, is all grey of 20 i, and its object is its upper left quarter."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[: SIDE // 2, : SIDE // 2] = True
    pictures = [np.full((SIDE, SIDE, 3), 20 * i, np.uint8) for i in range(count)]
    return [
        Scene(f"tile {i}", picture, prepare(model, picture), i, mask)
        for i, picture in enumerate(pictures)
    ]


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("model", [ANY_SIZE, FIXED], ids=["any size", "fixed"])
def test_cells_and_masks_by_hand(n: int, model: Model) -> None:
    suite = grids(model, n, count=9, tiles=tiles(model) + tiles(model))
    side = n * SIDE if model is ANY_SIZE else SIDE
    assert ("shrunk" in suite.description) is (model is FIXED)
    assert len(suite) == 18
    edges = [round(i * side / n) for i in range(n + 1)]
    boxes = [
        (slice(*rows), slice(*columns)) for rows in pairwise(edges) for columns in pairwise(edges)
    ]
    asked = Counter()
    for i, scene in enumerate(suite.scenes):
        assert scene.mask is not None
        assert scene.cell is not None
        assert scene.picture.shape == (side, side, 3)
        assert torch.equal(scene.x, prepare(model, scene.picture))
        shown = [np.unique(scene.picture[box]) for box in boxes]
        assert all(len(values) == 1 for values in shown)
        classes = [int(values[0]) // 20 for values in shown]
        assert len(set(classes)) == n * n
        cell = i % (n * n)  # cells are asked for in turn
        asked[cell] += 1
        assert classes[cell] == scene.target
        expected = torch.zeros(side, side, dtype=torch.bool)
        expected[boxes[cell]] = True
        assert torch.equal(scene.cell, expected)
        rows, columns = boxes[cell]
        height, width = (box.stop - box.start for box in boxes[cell])
        upper_left = torch.zeros(side, side, dtype=torch.bool)
        upper_left[rows.start : rows.start + round(height / 2), columns][:, : round(width / 2)] = (
            True
        )
        differs = (scene.mask ^ upper_left).sum()
        assert differs <= (0 if model is ANY_SIZE else height + width)
        assert not (scene.mask & ~scene.cell).any()
        assert scene.mask.any()
    assert max(asked.values()) - min(asked.values()) <= 1
    pairs = [suite.scenes[i : i + 2] for i in range(0, 18, 2)]
    assert all(np.array_equal(a.picture, b.picture) for a, b in pairs)


def test_masks_move_with_the_picture() -> None:
    """What is white in the shrunk grid's cell is what the mask says."""
    rng = np.random.default_rng(1)
    made = []
    for i in range(12):
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        top, left = rng.integers(0, 10, 2)
        mask[top : top + 9, left : left + 7] = True
        picture = np.repeat(mask.numpy()[..., None] * np.uint8(255), 3, -1)
        made.append(Scene(str(i), picture, prepare(FIXED, picture), i, mask))
    for model, size in ((FIXED, SIDE), (ANY_SIZE, 3 * SIDE)):
        for scene in grids(model, 3, count=6, tiles=made).scenes:
            assert scene.mask is not None
            assert scene.cell is not None
            assert scene.mask.shape == (size, size)
            white = torch.from_numpy(scene.picture[..., 0] > 127) & scene.cell
            assert torch.equal(scene.mask, white)


def test_the_seed_decides() -> None:
    def names(seed: int) -> list[str]:
        suite = grids(ANY_SIZE, count=3, seed=seed, tiles=tiles(ANY_SIZE))
        return [scene.name for scene in suite.scenes]

    assert names(0) == names(0)
    assert names(0) != names(1)
    assert len(set(names(0))) == 6


def test_what_is_refused() -> None:
    with pytest.raises(ModelError, match=r"3 different classes .* 2 x 2 needs 4"):
        grids(ANY_SIZE, tiles=tiles(ANY_SIZE, 3))
    with pytest.raises(SettingsError, match="n=1"):
        grids(ANY_SIZE, n=1, tiles=tiles(ANY_SIZE))
    with pytest.raises(SettingsError, match="count=0"):
        grids(ANY_SIZE, count=0, tiles=tiles(ANY_SIZE))


def test_photos_that_the_network_knows(lite: Model) -> None:
    suite = photo_grids(lite, count=2)
    names = ["tiger cat", "espresso", "tripod", "moped", "missile"]
    for scene in suite.scenes:
        assert lite.labels[scene.target] in names
        assert scene.picture.shape == (448, 448, 3)
        assert scene.mask is None
        assert scene.cell is not None
        assert scene.cell.sum() == 224**2
        # The cell holds the photo as the network alone would see it.
        rows, columns = (int(where.min()) for where in scene.cell.nonzero(as_tuple=True))
        part = scene.x[:, rows : rows + 224, columns : columns + 224]
        with torch.no_grad():
            assert lite.module(part[None]).argmax().item() == scene.target
    again = photo_grids(lite, count=2)
    assert all(torch.equal(a.x, b.x) for a, b in zip(suite.scenes, again.scenes, strict=True))


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"torchfbi\[demo\]"):
        photo_grids(ANY_SIZE)


def test_cutouts_are_shrunk_bilinearly() -> None:
    """An oblique edge in a tile is blended, not thinned out."""
    made = tiles(FIXED)
    stripes = np.zeros((SIDE, SIDE, 3), np.uint8)
    stripes[::2] = 200
    made = [Scene(t.name, stripes, t.x, t.target, t.mask) for t in made]
    scene = grids(FIXED, 2, count=1, tiles=made).scenes[0]
    small = Image.fromarray(stripes).resize((10, 10), Image.Resampling.BILINEAR)
    assert np.array_equal(scene.picture[:10, :10], np.asarray(small))
    assert scene.picture[2:8, 2:8].std() < 5
