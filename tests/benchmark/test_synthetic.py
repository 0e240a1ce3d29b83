"""The networks that a suite brings along: they know their task, and the mask is why."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from skimage.measure import label
from torch import Tensor

from torchfbi.errors import SettingsError
from torchfbi.evaluate.benchmark import Suite, digits, load_suite, synthetic
from torchfbi.evaluate.benchmark.digits import LOST, draw
from torchfbi.evaluate.benchmark.shapes import CLASSES, NAMES, SIDE, sample
from torchfbi.evaluate.benchmark.synthetic import _untrained, network
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.settings import Settings
from torchfbi.models import Model


@pytest.fixture(scope="module")
def trained() -> Model:
    before = torch.get_rng_state()
    with torch.inference_mode():  # a caller's mode does not reach the training
        model = network()
    assert torch.equal(torch.get_rng_state(), before)
    return model


@pytest.fixture(scope="module")
def suite(trained: Model) -> Suite:
    return load_suite("synthetic", count=24)


def ask(model: Model, pictures: list[np.ndarray]) -> Tensor:
    """Probabilities, normalised by hand."""
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    return model.module((x / 255 - 0.5) / 0.25).softmax(1)


def test_only_the_mask_tells_the_classes_apart() -> None:
    for target in range(len(NAMES)):
        for seed in range(5):
            made = sample(np.random.default_rng(seed), target)
            assert made.picture.shape == (SIDE, SIDE, 3)
            assert made.target == target
            differs = (made.picture != made.bare).any(-1)
            assert np.array_equal(differs, made.mask)
            assert made.mask.any() == (target > 0)
            if target:
                assert len(np.unique(made.picture[made.mask], axis=0)) == 1
                assert 30 < made.mask.sum() < 260


def test_the_number_of_things_does_not_tell_the_class() -> None:
    """Shapes and distractors are darker or brighter than any background, and do not touch."""

    def things(target: int) -> np.ndarray:
        made = [sample(np.random.default_rng(seed), target).picture for seed in range(120)]
        drawn = [((p < 60) | (p > 195)).all(-1) for p in made]
        return np.array([label(inside).max() for inside in drawn])

    nothing, disc = things(0), things(1)
    assert abs(nothing.mean() - disc.mean()) < 0.3
    assert set(disc) == set(nothing) == {2, 3, 4}


def test_shapes_by_hand() -> None:
    """Which points are inside: the centre, to its right, a corner, above, far out, a diagonal."""
    x, y = np.array([[0, 0.7, 0.7, 0, 2, 0.6], [0, 0, 0.8, -0.7, 2, 0.6]])
    assert {name: shape(x, y).astype(int).tolist() for name, shape in CLASSES.items()} == {
        "disc": [1, 1, 0, 1, 0, 1],
        "ring": [0, 1, 0, 1, 0, 1],
        "square": [1, 1, 1, 1, 0, 1],
        "triangle": [1, 0, 1, 1, 0, 1],
        "plus": [1, 1, 0, 1, 0, 0],
        "cross": [1, 0, 1, 0, 0, 1],
    }


def test_the_network_knows_fresh_images(trained: Model) -> None:
    assert sum(p.numel() for p in trained.module.parameters()) == 19_399
    assert not any(m.training for m in trained.module.modules())
    assert not any(p.requires_grad or p.is_inference() for p in trained.module.parameters())
    made = [sample(np.random.default_rng((99, i)), i % len(NAMES)) for i in range(280)]
    answers = ask(trained, [s.picture for s in made]).argmax(1)
    assert (answers == torch.tensor([s.target for s in made])).float().mean() >= 0.95


def test_the_evidence_is_causal(trained: Model, suite: Suite) -> None:
    """Painted over, the mask takes the class along; as many pixels elsewhere do not."""
    rng = np.random.default_rng(0)
    erased, elsewhere = [], []
    for scene in suite.scenes:
        assert scene.mask is not None
        mask = scene.mask.numpy()
        grey = scene.picture[~mask].mean(0).astype(np.uint8)
        erased.append(np.where(mask[..., None], grey, scene.picture))
        rest = rng.permutation(np.argwhere(~mask))[: mask.sum()]
        other = scene.picture.copy()
        other[tuple(rest.T)] = grey
        elsewhere.append(other)
    target = torch.tensor([scene.target for scene in suite.scenes])[:, None]
    whole = ask(trained, [scene.picture for scene in suite.scenes]).gather(1, target)
    assert (whole > 0.5).all()
    assert (ask(trained, erased).gather(1, target) < 0.1).float().mean() > 0.9
    assert (ask(trained, elsewhere).gather(1, target) > 0.5).float().mean() > 0.9


def test_scenes_hold_every_shape_equally_often(suite: Suite) -> None:
    assert Counter(scene.target for scene in suite.scenes) == dict.fromkeys(range(1, 7), 4)
    again = synthetic(count=3)
    for a, b in zip(again.scenes, suite.scenes[:3], strict=True):
        assert a.name == b.name
        assert torch.equal(a.x, b.x)
    assert not torch.equal(synthetic(count=1, seed=1).scenes[0].x, suite.scenes[0].x)
    with pytest.raises(SettingsError, match="seed=-1"):
        synthetic(seed=-1)


def test_the_weights_follow_from_the_generator() -> None:
    def weights(seed: int) -> list[Tensor]:
        return list(_untrained(torch.Generator().manual_seed(seed)).state_dict().values())

    first, same, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])
    assert network() is network()


def test_its_network_can_be_explained(trained: Model, suite: Suite) -> None:
    (batch,) = suite.batches(24)
    values, logits = ForwardBackward(trained.module, batch.x, Settings.plain())(batch.x)
    assert torch.equal(logits.argmax(1), batch.target)
    assert values.flatten(1).any(1).all()


def test_digits_are_read_and_lost_with_their_ink() -> None:
    suite = digits(count=20)
    assert Counter(scene.target for scene in suite.scenes) == dict.fromkeys(range(10), 2)
    (batch,) = suite.batches(20)
    assert batch.x.shape == (20, 1, 28, 28)
    assert batch.mask is not None
    target, ink = batch.target[:, None], batch.mask[:, None]
    black = torch.tensor((0 - 0.1307) / 0.3081)
    assert (batch.x[~ink] < (160 / 255 - 0.1307) / 0.3081).float().mean() > 0.98
    assert (batch.x[ink] > (63 / 255 - 0.1307) / 0.3081).all()
    read = suite.model.module(batch.x).softmax(1).gather(1, target)
    lost = suite.model.module(torch.where(ink, black, batch.x)).softmax(1).gather(1, target)
    assert (read > 0.5).all()
    assert (lost < 0.5).float().mean() > 0.8
    for scene in suite.scenes:
        attempt = int(scene.name.split("(")[1][:-1]) - 1
        made = draw(np.random.default_rng((0, attempt)), scene.target, 28)
        assert np.array_equal(made.picture, scene.picture[..., 0])
        bare = (torch.from_numpy(made.specks)[None, None] / 255 - 0.1307) / 0.3081
        assert suite.model.module(bare).softmax(1)[0, scene.target] < LOST
    assert torch.equal(digits(count=2).scenes[1].x, suite.scenes[1].x)


def test_specks_do_not_touch_the_digit() -> None:
    for seed in range(10):
        made = draw(np.random.default_rng(seed), seed, 28)
        assert made.picture.shape == (28, 28)
        assert (made.specks > 0).sum() == 4
        for row, column in np.argwhere(made.specks):
            near = made.ink[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            assert not near.any()
        assert 20 < made.ink.sum() < 300
