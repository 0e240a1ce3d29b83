"""Cut-outs: their masks are where the picture differs, and they are why the network answers."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from torchfbi.errors import ModelError, SettingsError, TrainingModeError
from torchfbi.evaluate.benchmark import cutouts, load_suite
from torchfbi.evaluate.benchmark.cutouts import (
    LOST,
    PER_CLASS,
    TRIES,
    _drawn,
    compose,
    cutout,
    files,
)
from torchfbi.evaluate.benchmark.scene import Suite
from torchfbi.evaluate.benchmark.textures import texture
from torchfbi.models import Labels, Model
from torchfbi.models.preprocess import Preprocess


@pytest.fixture(scope="module")
def suite(lite: Model) -> Suite:
    return load_suite("cutouts", lite, count=6)


def probability(model: Model, x: Tensor, target: int) -> float:
    with torch.no_grad():
        return model.module(x[None]).softmax(1)[0, target].item()


def test_textures_are_smooth_coloured_and_repeatable() -> None:
    first, again = (texture(np.random.default_rng(3), (40, 56)) for _ in range(2))
    assert first.shape == (40, 56, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, texture(np.random.default_rng(4), (40, 56)))
    for seed in range(20):
        made = texture(np.random.default_rng(seed), (64, 64)).astype(float)
        steps = np.abs(np.diff(made, axis=1)).mean()
        shuffled = np.random.default_rng(0).permutation(made.reshape(-1, 3)).reshape(made.shape)
        assert made.std((0, 1)).min() > 8
        assert steps < 0.6 * np.abs(np.diff(shuffled, axis=1)).mean()


def test_the_shipped_cutouts() -> None:
    assert len(files()) == 88
    for file in files():
        alpha = np.asarray(cutout(file).getchannel("A"))
        assert alpha.shape == (256, 256)
        assert 0.03 < (alpha > 127).mean() < 0.97


def test_a_square_by_hand() -> None:
    """Opaque red, its right half transparent: mask and picture both show the left half."""
    pixels = np.zeros((256, 256, 4), np.uint8)
    pixels[:, :128] = (255, 0, 0, 255)
    background = np.full((60, 80, 3), 90, np.uint8)
    places = set()
    for seed in range(30):
        made = compose(np.random.default_rng(seed), Image.fromarray(pixels), background)
        rows, columns = np.nonzero(made.mask.numpy())
        side, edge = np.ptp(rows) + 1, columns.max() + 1
        assert 30 <= side <= 48
        assert abs(np.ptp(columns) + 1 - side / 2) <= 0.5
        assert len(rows) == side * (np.ptp(columns) + 1)
        # Resizing blends the three pixels on both sides of the edge.
        inner, outer = made.mask.clone(), made.mask.clone()
        inner[:, edge - 3 :] = False
        outer[rows.min() : rows.max() + 1, edge : edge + 3] = True
        assert (made.picture[inner] == (255, 0, 0)).all()
        assert (made.picture[~outer] == 90).all()
        places.add((rows.min(), columns.min()))
    assert (background == 90).all()
    assert len(places) > 20


@pytest.mark.parametrize("index", [0, 40, 87])
def test_off_the_mask_is_the_background_but_for_soft_edges(index: int) -> None:
    rng = np.random.default_rng(index)
    background = texture(rng, (96, 128))
    made = compose(rng, cutout(files()[index]), background)
    differs = torch.from_numpy((made.picture != background).any(-1))
    float_mask = made.mask[None].float()
    near = nn.functional.max_pool2d(float_mask, 5, 1, 2)[0] > 0
    deep = nn.functional.avg_pool2d(float_mask, 5, 1, 2)[0] > 0.99
    faint = np.abs(made.picture.astype(int) - background)[~near.numpy()]
    assert (faint <= 255 * 0.05).mean() > 0.999  # a shadow of a hundredth may reach farther
    assert differs[deep].float().mean() > 0.95
    assert deep.sum() > 300


def test_each_is_recognised_and_lost_without_the_cutout(lite: Model, suite: Suite) -> None:
    assert suite.model is lite
    assert len(suite) == len({scene.name for scene in suite.scenes}) == 6
    assert max(Counter(scene.target for scene in suite.scenes).values()) <= PER_CLASS
    for scene in suite.scenes:
        assert scene.picture.shape == (224, 224, 3)
        x = (torch.from_numpy(scene.picture).permute(2, 0, 1) - 127.0) / 128
        torch.testing.assert_close(scene.x, x, rtol=0, atol=1e-6)
        assert probability(lite, scene.x, scene.target) > 0.5
        code = scene.name.split("(")[-1].removesuffix(")")
        index = files().index(f"{code}.webp")
        drawn = [_drawn(lite, index, (0, index, attempt)) for attempt in range(TRIES)]
        (made,) = (c for c in drawn if np.array_equal(c.picture, scene.picture))
        assert scene.mask is not None
        assert torch.equal(made.mask, scene.mask)
        bare = (torch.from_numpy(made.background).permute(2, 0, 1) - 127.0) / 128
        assert probability(lite, bare, scene.target) < LOST


def test_the_seed_decides_and_fewer_are_the_first_of_more(lite: Model, suite: Suite) -> None:
    fewer = cutouts(lite, count=2)
    for a, b in zip(fewer.scenes, suite.scenes[:2], strict=True):
        assert (a.name, a.target) == (b.name, b.target)
        assert np.array_equal(a.picture, b.picture)
        assert torch.equal(a.x, b.x)
    other = cutouts(lite, count=1, seed=1)
    assert other.scenes[0].name != suite.scenes[0].name


class Wrapped(nn.Module):
    """EfficientNet-Lite0 for another order and scale of the channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x.flip(1) * 255 - 127) / 128)


def test_a_network_of_another_size_and_normalisation(lite: Model) -> None:
    preprocess = Preprocess(208, (192, 208), (0.0,) * 3, (1.0,) * 3, channels="BGR")
    model = Model(Wrapped(lite.module).eval(), preprocess, lite.labels, "wrapped")
    (scene,) = cutouts(model, count=1).scenes
    assert scene.picture.shape == (192, 208, 3)
    bgr = torch.from_numpy(scene.picture[..., ::-1].copy()).permute(2, 0, 1)
    assert torch.equal(scene.x, bgr / 255)
    assert probability(model, scene.x, scene.target) > 0.5
    assert scene.mask is not None
    assert scene.mask.shape == (192, 208)


class White(nn.Module):
    """Class 1 where more than one pixel in 200 is white, else class 0, always sure of it."""

    def forward(self, x: Tensor) -> Tensor:
        white = (x.amin(1) > 0.98).float().mean((1, 2))
        return torch.stack([0 * white, 2000 * white - 10], 1)


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 3)


def small(module: nn.Module) -> Model:
    preprocess = Preprocess(32, 32, (0.0,) * 3, (1.0,) * 3)
    return Model(module.eval(), preprocess, Labels.numbered(3), "toy")


def test_two_of_a_class_and_none_that_the_background_would_do_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["torchfbi.evaluate.benchmark.cutouts"], "TRIES", 1)
    assert [scene.target for scene in cutouts(small(White())).scenes] == [1, 1]


def test_a_network_that_recognises_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["torchfbi.evaluate.benchmark.cutouts"], "TRIES", 1)
    with pytest.raises(ModelError, match=r"toy recognises none of the 88 cut-outs"):
        cutouts(small(Undecided()))
    with pytest.raises(SettingsError, match="count=0"):
        cutouts(small(Undecided()), count=0)
    with pytest.raises(TrainingModeError):
        cutouts(replace(small(Undecided()), module=nn.Sequential(Undecided())))
