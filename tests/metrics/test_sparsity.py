"""Support, Gini index and Moran's I by hand, by their definitions, and as Quantus measures them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchfbi.errors import InputError
from torchfbi.metrics import gini, morans_i, support_fraction

METRICS = [support_fraction, gini, morans_i]


def expect(found: Tensor, *values: float, atol: float = 1e-12) -> None:
    expected = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol, equal_nan=True)


def some_maps(number: int, *size: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.relu(torch.randn(size, generator=generator, dtype=torch.float64))


def test_support_by_hand() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 1e-30]], [[0, 0], [0, 0]]])
    expect(support_fraction(maps), 3 / 4, 0)


def test_gini_by_hand() -> None:
    maps = torch.tensor([[[0.0, 0], [0, 7]], [[3, 3], [3, 3]], [[1, 2], [3, 4]], [[0, 0], [0, 0]]])
    expect(gini(maps), 3 / 4, 0, (-3 - 2 + 3 + 12) / 40, math.nan)


@given(st.integers(0, 2**32))
def test_gini_is_the_mean_difference_over_twice_the_mean(number: int) -> None:
    (one,) = maps = some_maps(number, 1, 4, 5)
    differences = (one.flatten()[:, None] - one.flatten()).abs()
    expect(gini(maps), (differences.mean() / (2 * one.mean())).item())


def test_moran_by_hand() -> None:
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    chess = ((rows + columns) % 2).float()
    halves = (rows < 2).float()
    # z is +-1/2: of 24 pairs the four across the middle disagree, the others agree.
    expect(morans_i(torch.stack([chess, halves])), -1, (20 - 4) / 24)
    ramp = torch.tensor([[[1.0, 2.0, 3.0]]])  # z = -1, 0, 1: no pair has a product
    expect(morans_i(ramp), 0)
    expect(morans_i(torch.tensor([[[0.0, 0.0, 3.0]]])), ((1 * 1 + 1 * -2) / 2) / (6 / 3))


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(2, 5))
def test_moran_is_what_the_full_weight_matrix_gives(number: int, height: int, width: int) -> None:
    maps = some_maps(number, 1, height, width) + torch.rand(1, height, width)
    places = [(r, c) for r in range(height) for c in range(width)]
    w = torch.tensor([[float(math.dist(a, b) == 1) for b in places] for a in places]).double()
    z = maps.flatten() - maps.mean()
    expect(morans_i(maps), (len(z) / w.sum() * (z @ w @ z) / (z @ z)).item())


def test_moran_of_noise_is_its_expectation() -> None:
    maps = torch.rand(4000, 4, 4, dtype=torch.float64)
    assert abs(morans_i(maps).mean().item() + 1 / 15) < 0.01


def test_constant_maps_have_no_coherence() -> None:
    tenth = torch.full((3, 3), 0.1, dtype=torch.float64)
    assert (tenth - tenth.mean()).any()  # its mean is rounded: nothing but rounding would remain
    maps = torch.stack([torch.zeros_like(tenth), tenth])
    expect(morans_i(maps), math.nan, math.nan)
    expect(morans_i(torch.ones(2, 1, 1)), math.nan, math.nan)


@pytest.mark.parametrize("metric", METRICS)
@given(st.integers(0, 2**32), st.integers(-30, 30))
def test_neither_scale_nor_batch_matters(metric: Any, number: int, power: int) -> None:
    maps = some_maps(number, 3, 6, 5)
    found = metric(maps)
    assert found.dtype == torch.float64
    torch.testing.assert_close(metric(maps * 2.0**power), found, rtol=1e-12, atol=1e-15)
    assert torch.equal(metric(maps[1:2]), found[1:2])
    torch.testing.assert_close(metric(maps.flip(2).transpose(1, 2)), found)


@pytest.mark.parametrize("metric", METRICS)
def test_no_maps_give_no_values(metric: Any) -> None:
    assert metric(torch.zeros(0, 3, 3)).shape == (0,)
    with pytest.raises(InputError, match="signed attributions"):
        metric(torch.full((1, 2, 2), -1.0))


def test_quantus_agrees() -> None:
    maps = some_maps(0, 4, 12, 10)
    arguments = {
        "model": None,
        "x_batch": np.zeros((4, 3, 12, 10)),
        "y_batch": np.zeros(4, dtype=int),
        "channel_first": True,
    }
    options = {"abs": False, "normalise": False, "disable_warnings": True}
    sparse = quantus.Sparseness(**options)(a_batch=maps[:, None].numpy(), **arguments)
    expect(gini(maps), *map(float, sparse), atol=1e-6)  # it adds 1e-7 to every pixel
    effective = quantus.EffectiveComplexity(eps=0.0, **options)
    counts = effective(a_batch=maps[:, None].numpy(), **arguments)
    expect(support_fraction(maps), *(float(count) / 120 for count in counts))
