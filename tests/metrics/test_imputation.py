"""ROAD: holes filled by hand, by harmonic ramps, and as pytorch-grad-cam fills them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor, nn

from torchfbi.errors import InputError, SettingsError
from torchfbi.metrics import impute, road
from torchfbi.models.torchvision import import_torchvision

import_torchvision()  # pytorch-grad-cam imports it, and may need its operators declared

from pytorch_grad_cam.metrics.road import (  # noqa: E402
    NoisyLinearImputer,
    ROADLeastRelevantFirst,
    ROADMostRelevantFirst,
    neighbors_weights,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

# It puts tensors where NumPy 2 wants arrays.
own_deprecation = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept")


def brightness(images: Tensor) -> Tensor:
    p = images.double().mean((1, 2, 3))
    return torch.stack([p, 1 - p], 1)


def holes(number: int, share: float, height: int, width: int) -> Tensor:
    removed = torch.rand(1, height, width, generator=torch.Generator().manual_seed(number)) < share
    removed[:, 0, 0] = False
    return removed


# Imputation


def test_one_pixel_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 99.0, 6.0], [7.0, 8.0, 12.0]]]])
    centre, corner = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    centre[:, 1, 1] = corner[:, 0, 0] = True
    filled = impute(x, centre)
    assert filled[0, 0, 1, 1].item() == pytest.approx((2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 12) / 12)
    # At the corner two neighbours and one diagonal are left, weights 2 : 2 : 1.
    assert impute(x, corner)[0, 0, 0, 0].item() == pytest.approx((2 * 2 + 2 * 4 + 99) / 5, rel=1e-4)
    assert torch.equal(filled[:, ~centre[0][None].expand(1, 3, 3)], x[:, ~centre])
    assert x[0, 0, 1, 1] == 99


def test_two_pixels_that_lean_on_each_other() -> None:
    x = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    x[..., 0] = 3.0
    removed = torch.tensor([[[False, True, True, False]]])
    assert impute(x, removed, 1e-12).flatten().tolist() == pytest.approx([3, 2, 1, 0])


def test_a_ramp_is_restored_in_a_hole_of_any_shape() -> None:
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    ramp = torch.stack([rows + 2 * columns, 5 - rows])[None].double()
    hole = (rows - 9) ** 2 + (columns - 11) ** 2 < 64
    torch.testing.assert_close(impute(ramp, hole[None], 1e-12), ramp)


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.95]), st.integers(1, 14))
def test_the_equations_are_those_of_pytorch_grad_cam(
    number: int, share: float, height: int
) -> None:
    width = 13
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(1, 3, height, width, generator=generator, dtype=torch.float64)
    removed = holes(number, share, height, width)
    if not removed.any():
        return
    a, b = NoisyLinearImputer.setup_sparse_system(
        (~removed[0]).double().numpy(), x[0].numpy(), neighbors_weights
    )
    expected = x[0].clone()
    expected[:, removed[0]] = torch.from_numpy(spsolve(csc_matrix(a), b).reshape(-1, 3).T)
    torch.testing.assert_close(impute(x, removed, 1e-11)[0], expected, rtol=0, atol=1e-8)


def test_the_default_tolerance_stays_below_the_noise() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    x = torch.rand(1, 3, 64, 64)
    for removed in ((rows - 30) ** 2 + (columns - 34) ** 2 < 1100, torch.rand(64, 64) < 0.9):
        rough, exact = impute(x, removed[None]), impute(x.double(), removed[None], 1e-10)
        assert (rough - exact).abs().max() < 0.01


def test_every_image_is_filled_on_its_own() -> None:
    x = torch.rand(3, 3, 12, 10)
    removed = torch.cat([holes(i, share, 12, 10) for i, share in enumerate([0.2, 0.9, 0.0])])
    filled = impute(x, removed)
    for i in range(3):
        assert torch.equal(impute(x[i : i + 1], removed[i : i + 1])[0], filled[i])
    assert torch.equal(filled[2], x[2])
    assert filled.dtype == x.dtype
    assert impute(x.half(), removed).dtype == torch.float16
    assert torch.equal(impute(torch.zeros(1, 3, 12, 10), removed[:1]), torch.zeros(1, 3, 12, 10))


def test_imputation_refuses() -> None:
    x = torch.rand(1, 3, 4, 4)
    with pytest.raises(InputError, match=r"\(N, H, W\)"):
        impute(x, torch.zeros(1, 3, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="nothing is left"):
        impute(x, torch.ones(1, 4, 4, dtype=torch.bool))


# The metric


def test_a_curve_by_hand() -> None:
    """One bright pixel among ten: removed, the whole image is 0; kept, its neighbours rise."""
    x, maps, target = torch.zeros(1, 1, 1, 10), torch.zeros(1, 1, 10), torch.tensor([0])
    x[..., 4] = maps[..., 4] = 1.0

    def score(first: Any, percentage: int) -> float:
        options: Any = {"first": first, "percentages": [percentage], "noise": 0.0}
        return road(brightness, x, target, maps, **options).item()

    assert score("most", 10) == 0
    assert score("least", 80) > 0.11  # of nine dark pixels eight go, and one beside the bright
    assert score("least", 90) == pytest.approx(1, rel=1e-3)  # all are filled from the bright one


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(5, 300, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weight.T).softmax(1)


@own_deprecation
@pytest.mark.parametrize(
    ("first", "theirs"), [("most", ROADMostRelevantFirst), ("least", ROADLeastRelevantFirst)]
)
def test_pytorch_grad_cam_agrees_on_colour_images(first: Any, theirs: Any) -> None:
    network, generator = _Network(), torch.Generator().manual_seed(1)
    x = torch.rand(3, 3, 10, 10, generator=generator)
    maps = torch.randperm(300, generator=generator).reshape(3, 10, 10) / 300
    target = torch.tensor([0, 3, 4])
    scores = []
    for percentile in range(10, 100, 10):
        metric = theirs(percentile)
        metric.perturbation.imputer.noise = 0.0
        functions = [ClassifierOutputTarget(int(t)) for t in target]
        scores.append(metric(x, maps.numpy(), functions, network, return_diff=False))
    expected = torch.from_numpy(np.mean(scores, 0)).double()
    found = road(network, x, target, maps, first=first, noise=0.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_the_noise_is_seeded_and_lies_on_removed_pixels_only() -> None:
    seen: list[Tensor] = []

    def watched(images: Tensor) -> Tensor:
        seen.append(images)
        return brightness(images)

    x, target = torch.full((2, 3, 16, 16), 0.5), torch.tensor([0, 0])
    maps = torch.rand(2, 16, 16)
    state = torch.get_rng_state()
    found = road(watched, x, target, maps, percentages=[25], noise=0.1, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    (images,) = seen
    changed = images != 0.5
    for one, values in zip(changed, maps, strict=True):
        assert (one.sum((1, 2)) == 64).all()
        assert torch.equal(one[0], values >= values.flatten().sort(descending=True).values[63])
    assert images[changed].std().item() == pytest.approx(0.1, rel=0.15)
    again, other = (
        road(brightness, x, target, maps, percentages=[25], noise=0.1, seed=seed) for seed in (3, 4)
    )
    assert torch.equal(again, found)
    assert not torch.equal(other, found)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(-30, 30), st.sampled_from(["most", "least"]))
def test_neither_scale_nor_batch_nor_chunk_matters(number: int, power: int, first: Any) -> None:
    generator = torch.Generator().manual_seed(number)
    x = torch.rand(3, 3, 6, 5, generator=generator)
    maps = torch.randint(4, (3, 6, 5), generator=generator).float()
    target, options = torch.tensor([0, 1, 1]), {"first": first, "percentages": [20, 70]}
    found = road(brightness, x, target, maps, **options)
    assert found.dtype == torch.float64
    again = road(brightness, x, target, maps * 2.0**power, chunk=2, **options)
    torch.testing.assert_close(again, found)
    alone = road(brightness, x[1:2], target[1:2], maps[1:2], **options)
    torch.testing.assert_close(alone, found[1:2])


def test_what_is_refused() -> None:
    x, maps, target = torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4), torch.tensor([0])
    with pytest.raises(SettingsError, match="unknown first"):
        road(brightness, x, target, maps, first="last")  # type: ignore[arg-type]
    for percentages in ([], [0], [100], [math.nan]):
        with pytest.raises(SettingsError, match="between 0 and 100"):
            road(brightness, x, target, maps, percentages=percentages)
    with pytest.raises(InputError, match="nothing is left"):
        road(brightness, x, target, maps, percentages=[99])
