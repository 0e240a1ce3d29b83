"""Scenes that fit together, stacked; and what is asked of a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchfbi.errors import InputError, ModelError, SettingsError, TrainingModeError
from torchfbi.evaluate.benchmark import OWN_MODEL, SUITES, Scene, Suite, load_suite
from torchfbi.evaluate.benchmark.predict import check, prepare, probabilities, takes
from torchfbi.models import Labels, Model
from torchfbi.models.preprocess import Preprocess


def tiny(module: nn.Module, **options: Any) -> Model:
    settings = {"resize": 8, "crop": 8, "mean": (0.5,) * 3, "std": (0.25,) * 3, "fit": "stretch"}
    return Model(module.eval(), Preprocess(**(settings | options)), Labels("ab"), "tiny")


class Net(nn.Module):
    """Two logits: the sums of the first and of the last channel. Takes any size."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, [0, -1]].sum((2, 3))


def scene(number: int, side: int = 4, **parts: Any) -> Scene:
    x = torch.full((3, side, side), float(number))
    return Scene(str(number), np.zeros((side, side, 3), np.uint8), x, number, **parts)


def test_batches_hold_one_kind_each_and_every_scene_once() -> None:
    mask = torch.eye(4, dtype=torch.bool)
    scenes = (
        scene(0, mask=mask),
        scene(1),
        scene(2, side=5),
        *(scene(i, mask=mask.flip(0)) for i in (3, 4)),
        scene(5, mask=mask, cell=~mask),
    )
    batches = list(Suite("", "", tiny(Net()), scenes).batches(2))
    assert [batch.indices for batch in batches] == [(0, 3), (4,), (1,), (2,), (5,)]
    first, *_, last = batches
    assert torch.equal(first.x, torch.stack([scenes[0].x, scenes[3].x]))
    assert first.target.dtype == torch.int64
    assert first.target.tolist() == [0, 3]
    assert first.mask is not None
    assert torch.equal(first.mask, torch.stack([mask, mask.flip(0)]))
    assert first.cell is None
    assert batches[2].mask is None
    assert last.cell is not None
    assert torch.equal(last.cell[0], ~mask)


def test_scenes_that_do_not_fit_are_refused() -> None:
    for mask in (torch.ones(4, 5, dtype=torch.bool), torch.ones(4, 4)):
        with pytest.raises(InputError, match="masks and cells are bool"):
            scene(0, mask=mask)
    with pytest.raises(InputError, match="no pixel"):
        scene(0, mask=torch.zeros(4, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="picture"):
        Scene("", np.zeros((4, 4, 3), np.uint8), torch.zeros(3, 5, 4), 0)
    with pytest.raises(InputError, match="no scene"):
        Suite("empty", "", tiny(Net()), ())
    with pytest.raises(SettingsError, match="size=0"):
        next(Suite("", "", tiny(Net()), (scene(0),)).batches(0))


@pytest.mark.parametrize("channels", ["RGB", "BGR", "L"])
def test_pictures_are_normalised_and_nothing_else(channels: str) -> None:
    bands = 1 if channels == "L" else 3
    mean, std = (0.4, 0.5, 0.6)[:bands], (0.2, 0.3, 0.4)[:bands]
    model = tiny(Net(), channels=channels, mean=mean, std=std, resize=9, fit="crop")
    picture = np.random.default_rng(0).integers(0, 256, (6, 11, 3), np.uint8)
    if channels == "L":
        picture[:] = picture[..., :1]
    x = prepare(model, picture)
    pixels = picture[..., {"RGB": [0, 1, 2], "BGR": [2, 1, 0], "L": [0]}[channels]] / 255
    expected = (pixels - np.array(mean)) / np.array(std)
    torch.testing.assert_close(x, torch.tensor(expected).permute(2, 0, 1).float())
    assert np.array_equal(model.preprocess.denormalise(x), picture)


def test_probabilities_with_and_without_a_softmax_of_the_networks_own() -> None:
    images = list(torch.randn(11, 3, 2, 2))
    plain = probabilities(tiny(Net()), images)
    torch.testing.assert_close(plain, Net()(torch.stack(images)).softmax(1))
    assert torch.equal(probabilities(tiny(nn.Sequential(Net(), nn.Softmax(1))), images), plain)
    several = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sigmoid())
    expected = torch.stack(images).mean((2, 3)).sigmoid()
    torch.testing.assert_close(probabilities(tiny(several), images), expected)
    several[-1] = nn.Hardtanh(0, 1)  # logits that only look like it
    expected = torch.stack(images).mean((2, 3)).clip(0, 1).softmax(1)
    torch.testing.assert_close(probabilities(tiny(several), images), expected)
    with pytest.raises(InputError, match="no classifier"):
        probabilities(tiny(nn.Identity()), images)


def test_which_sizes_a_network_takes() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    assert takes(tiny(Net()), (16, 24))
    assert takes(tiny(flat), (8, 8))
    assert not takes(tiny(flat), (16, 16))

    class Dense(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    assert not takes(tiny(Dense()), (16, 16))


def test_what_is_refused() -> None:
    for count, seed in ((0, 0), (1, -1)):
        with pytest.raises(SettingsError):
            check(tiny(Net()), count, seed)
    with pytest.raises(TrainingModeError, match="tiny"):
        check(replace(tiny(Net()), module=nn.BatchNorm2d(3)), 1, 0)
    with pytest.raises(SettingsError, match="Did you mean grid2"):
        load_suite("grid-2")
    with pytest.raises(ModelError, match="no model"):
        load_suite("cutouts", "no-such-network")
    assert set(SUITES) == {"cutouts", "grid2", "grid3", "photo-grid", "synthetic", "digits"}
    assert set(SUITES) > OWN_MODEL
