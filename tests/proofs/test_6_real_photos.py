"""Proof 6: real photos through the embedded network, and real digits through the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from photos import CAT, COFFEE, cat_beside_coffee
from torchfbi import Explanation, Model, Settings, explain, load
from torchfbi.models.images import Photo

GOLDEN = Path(__file__).parent / "golden.npz"
GRID = 14


@pytest.fixture(scope="module")
def network(lite: Model) -> Model:
    return lite


def share_inside(explanation: Explanation, box: tuple[int, int, int, int]) -> float:
    """The share of what the support holds, that is of what speaks for the class or of the signal's
    magnitude, that lies inside a box (left, top, right, bottom) of the original photo."""
    values, support = explanation.on_photo()
    energy = np.abs(values).sum(0)
    left, top, right, bottom = box
    assert support.any()
    return float(energy[top:bottom, left:right].sum() / energy.sum())


def test_the_cat_is_a_cat_and_its_support_lies_on_the_face(network: Model) -> None:
    """Measured: 97.6 % on the face, by 37 % of the pixels."""
    explanation = explain(network, CAT)
    assert "cat" in explanation.top(1)[0][1]
    assert 0.12 < explanation.density.item() < 0.45
    face = (90, 60, 330, 280)  # eyes, nose and cheeks: 39 % of the photo
    assert share_inside(explanation, face) > 0.95


def test_the_coffee_is_espresso_and_its_support_lies_in_the_cup(network: Model) -> None:
    """Measured: 99.9 %, by 17 % of the pixels."""
    explanation = explain(network, COFFEE)
    assert explanation.top(1)[0][1] == "espresso"
    cup = (190, 60, 410, 280)
    assert share_inside(explanation, cup) > 0.95


LEFT = (0, 0, 224, 448)


def test_contrast_moves_with_the_class(network: Model) -> None:
    """What speaks for the one speaks against the other. Measured: 100.0 %, 0.0 % and -.47."""
    photo = cat_beside_coffee()
    cat, coffee = (explain(network, photo, target) for target in ("tabby cat", "espresso"))
    assert share_inside(cat, LEFT) > 0.99
    assert share_inside(coffee, LEFT) < 0.01
    pair = torch.stack([cat.evidence.flatten(), coffee.evidence.flatten()])
    assert torch.corrcoef(pair)[0, 1] < -0.3


def test_the_papers_own_mode_does_not(network: Model) -> None:
    """Section 4 says so itself: decoupling the classes is left open there. Measured: 84 %, 76 %
    and .96."""
    photo, settings = cat_beside_coffee(), Settings.paper(tau=0.0)
    cat, coffee = (explain(network, photo, t, settings) for t in ("tabby cat", "espresso"))
    assert share_inside(cat, LEFT) > 0.6
    assert share_inside(coffee, LEFT) > 0.6
    pair = torch.stack([cat.values.flatten(), coffee.values.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.9


def coarse(explanation: Explanation) -> np.ndarray:
    """The heatmap's mean over the cells of a coarse grid."""
    heat = explanation.to_heatmap()[0]
    side = heat.shape[0] // GRID
    return heat.reshape(GRID, side, GRID, side).mean((1, 3)).numpy()


@pytest.mark.parametrize("preset", ["paper", "contrast", "plain"])
@pytest.mark.parametrize("name", ["cat", "coffee"])
def test_golden_arrays(network: Model, preset: str, name: str) -> None:
    """Made by ``python tests/proofs/test_6_real_photos.py``; they guard against drift."""
    with np.load(GOLDEN) as golden:
        expected = golden[f"{name}_{preset}"]
    found = coarse(explain(network, {"cat": CAT, "coffee": COFFEE}[name], settings=of(preset)))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995
    assert np.abs(found - expected).max() < 0.1 * expected.max()


def of(preset: str) -> Settings:
    """The paper's tau was chosen for VGG-16's scale; here the threshold is at zero."""
    return Settings.paper(tau=0.0) if preset == "paper" else Settings.from_preset(preset)


def digit_photos(count: int) -> tuple[list[Photo], list[int]]:
    """scikit-learn's digits (8 x 8, 0..16), white on black, with a border as MNIST has."""
    data = load_digits()
    images = np.pad(data.images[:count] * 255 / 16, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    return [Photo.read(image) for image in images], data.target[:count].tolist()


def test_digits_through_the_papers_mode() -> None:
    """Conv-ReLU-maxpool and dense layers with biases, trained: what the paper was written for.

    Its tau of 10 does not transfer: on this small network no contribution is so large and every
    support is empty. With tau = 1 the support is sparse and lies on the strokes (measured: 61 %
    of the energy on 24 % of the area, 9 % of the pixels in the support).
    """
    digits = load("digits")
    photos, truth = digit_photos(100)
    assert not explain(digits, photos, settings=Settings.paper()).support.any()
    explanation = explain(digits, photos, settings=Settings.paper(tau=1.0))
    assert explanation.target is not None
    assert (explanation.target == torch.tensor(truth)).float().mean() > 0.8
    x = torch.stack([digits.preprocess(photo)[0] for photo in photos])
    ink = (x[:, 0] > 0).float()
    energy = explanation.values.abs().sum(1)
    on_ink = (energy * ink).sum((1, 2)) / energy.sum((1, 2)).clamp(min=1e-12)
    assert on_ink.mean() > 0.55
    assert ink.mean() < 0.25
    assert explanation.density.mean() < 0.12


if __name__ == "__main__":
    lite = load("efficientnet-lite0")
    arrays = {
        f"{name}_{preset}": coarse(explain(lite, path, settings=of(preset))).astype(np.float32)
        for name, path in (("cat", CAT), ("coffee", COFFEE))
        for preset in ("paper", "contrast", "plain")
    }
    np.savez_compressed(GOLDEN, **arrays)
