"""Sweeps: every number of the grid computed a second time, by hand or by a slower way."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import skimage
import torch
from torch import Tensor, nn

import torchfbi
from torchfbi.errors import InputError, SettingsError, TargetError
from torchfbi.method.settings import Settings
from torchfbi.sweep import Sweep, sweep
from torchfbi.verification.blur import blur

CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"


class Brightness(nn.Module):
    """Logits (mean of relu(x), 0), or their softmax: the target's probability is sigmoid(mean)."""

    def __init__(self, softmax: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 1, 1))
        self.first = nn.Parameter(torch.tensor([[1.0], [0.0]]))
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        feature = torch.relu(nn.functional.conv2d(x, self.weight))
        mean = feature.mean((1, 2, 3))[:, None]
        logits = nn.functional.linear(mean, self.first)
        return logits.softmax(1) if self.softmax else logits


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def image() -> Tensor:
    """Brightness 3 in one corner, 1 elsewhere, 16 x 16."""
    x = torch.ones(1, 1, 16, 16)
    x[..., :8, :8] = 3
    return x


@pytest.mark.parametrize("softmax", [False, True])
def test_numbers_of_a_network_computed_by_hand(image: Tensor, softmax: bool) -> None:
    # The seed e_0 comes back as 1/256 at each pixel; its contribution is x/256. A tau of
    # 2/256 keeps the corner only, 4/256 nothing, none everything.
    grid = sweep(
        Brightness(softmax).eval(),
        image,
        ks=[1.0],
        taus=[None, 2 / 256, 4 / 256],
        target=0,
        settings=Settings.plain(),
    )
    assert grid.density.tolist() == [[1, 0.25, 0]]
    assert grid.sigma == 1
    mean, blurred = image.mean().item(), blur(image, 1.0)
    corner = torch.zeros_like(image, dtype=torch.bool)
    corner[..., :8, :8] = True
    kept = torch.where(corner, image, blurred).mean().item()
    removed = torch.where(corner, blurred, image).mean().item()
    none = blurred.mean().item()
    expected = torch.tensor([[sigmoid(mean), sigmoid(kept), sigmoid(none)]])
    torch.testing.assert_close(grid.kept, expected)
    expected = torch.tensor([[sigmoid(none), sigmoid(removed), sigmoid(mean)]])
    torch.testing.assert_close(grid.removed, expected)
    assert grid.probability == pytest.approx(sigmoid(mean))
    assert grid.blurred == pytest.approx(sigmoid(none))


def test_an_image_that_a_blur_does_not_change_gives_the_same_probability_everywhere() -> None:
    flat = torch.full((1, 1, 16, 16), 2.0)
    grid = sweep(Brightness().eval(), flat, ks=[0.5, 1.0], taus=[0.0, 1.0], target=0)
    everywhere = torch.full((2, 2), sigmoid(2.0))
    torch.testing.assert_close(grid.kept, everywhere)
    torch.testing.assert_close(grid.removed, everywhere)


def test_blur_is_the_gaussian_sum_written_out() -> None:
    x = torch.rand(1, 2, 5, 6, dtype=torch.float64)
    sigma, reach = 0.8, 3
    weights = {d: math.exp(-0.5 * (d / sigma) ** 2) for d in range(-reach, reach + 1)}
    total = sum(weights.values()) ** 2
    expected = torch.zeros_like(x)
    for row in range(5):
        for column in range(6):
            for dy, wy in weights.items():
                for dx, wx in weights.items():
                    y, z = min(max(row + dy, 0), 4), min(max(column + dx, 0), 5)
                    expected[..., row, column] += wy * wx / total * x[..., y, z]
    torch.testing.assert_close(blur(x, sigma), expected)


@pytest.mark.parametrize("sigma", [0.0625, 0.5, 3.0])
def test_blur_keeps_a_constant(sigma: float) -> None:
    flat = torch.full((2, 3, 4, 9), 0.7)
    torch.testing.assert_close(blur(flat, sigma), flat)


@pytest.fixture(scope="module")
def cat(lite: torchfbi.Model) -> Sweep:
    return sweep(lite, CAT, ks=[0.5, 1.0], taus=[0.0, 0.01, 10.0])


def test_a_photo(cat: Sweep) -> None:
    assert cat.density.shape == cat.kept.shape == cat.removed.shape == (2, 3)
    assert [[cell.settings.k for cell in row] for row in cat.explanations] == [[0.5] * 3, [1.0] * 3]
    assert [cell.settings.tau for cell in cat.explanations[0]] == [0.0, 0.01, 10.0]
    assert cat.taus == (0.0, 0.01, 10.0)
    for row in range(2):
        for column in range(3):
            cell = cat.explanations[row][column]
            assert cell.density.item() == cat.density[row, column].item()
            assert int(cell.target) == cat.target
    assert cat.probability == pytest.approx(0.39, abs=0.02)
    assert "tiger cat" in repr(cat)


def test_an_empty_support_keeps_nothing_and_removes_nothing(cat: Sweep) -> None:
    assert cat.density[0, 2] == 0
    assert cat.kept[0, 2].item() == pytest.approx(cat.blurred, abs=1e-5)
    assert cat.removed[0, 2].item() == pytest.approx(cat.probability, abs=1e-5)


def test_a_larger_tau_never_widens_the_top_support(cat: Sweep) -> None:
    # The signal that arrives at the first feature does not depend on tau, and with k = 1 all
    # maps go on, so the supports are nested there. Further down nothing is guaranteed.
    first = [cell.layers[0].support for cell in cat.explanations[1]]
    for wide, narrow in pairwise(first):
        assert (wide | narrow).equal(wide)


def test_to_dict_is_json(cat: Sweep) -> None:
    plain = json.loads(json.dumps(cat.to_dict()))
    assert plain["label"] == "tiger cat"
    assert len(plain["cells"]) == 6
    assert plain["cells"][2]["tau"] == 10.0
    assert plain["cells"][4]["density"] == cat.density[1, 1].item()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ks": [], "taus": [0]}, SettingsError, "ks is empty"),
        ({"ks": [1.0], "taus": []}, SettingsError, "taus is empty"),
        ({"ks": [0.0], "taus": [0]}, SettingsError, "k is 0.0"),
        ({"ks": [1.0], "taus": [-1]}, SettingsError, ">= 0"),
        ({"ks": [1.0], "taus": [0], "target": torch.ones_like}, TargetError, "must name it"),
    ],
)
def test_errors(
    image: Tensor, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sweep(Brightness().eval(), image, **options)


def test_one_image_at_a_time(image: Tensor) -> None:
    with pytest.raises(InputError, match=r"\(1, C, H, W\)"):
        sweep(Brightness().eval(), image.repeat(2, 1, 1, 1), ks=[1.0], taus=[0])
    with pytest.raises(InputError, match="bare"):
        sweep(Brightness().eval(), CAT, ks=[1.0], taus=[0])


def test_the_model_is_left_alone(image: Tensor) -> None:
    network = Brightness().eval()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    sweep(network, image, ks=[1.0], taus=[0.0], settings=torchfbi.Settings.plain())
    assert all(t.equal(before[name]) for name, t in network.state_dict().items())
    assert network.weight.grad is None
