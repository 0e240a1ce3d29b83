"""Energy, top area and pointing by hand, by enumeration, and as Quantus measures them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchfbi.errors import InputError, SettingsError
from torchfbi.metrics import energy_in_mask, grid_cell, pointing_game, top_area_in_mask

METRICS = [energy_in_mask, top_area_in_mask, pointing_game]

MAP = torch.tensor([[[4.0, 3.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
LEFT = torch.tensor([[True, False, False]]).expand(3, 3)


def expect(found: Tensor, *values: float) -> None:
    expected = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, equal_nan=True)


def small_maps(number: int, levels: int, size: tuple[int, ...]) -> Tensor:
    """Maps with many ties."""
    return torch.randint(levels, size, generator=torch.Generator().manual_seed(number)).float()


def random_masks(number: int, size: tuple[int, ...]) -> Tensor:
    """Masks of which none is empty."""
    masks = torch.rand(size, generator=torch.Generator().manual_seed(number)) > 0.6
    masks[:, 0, 0] = True
    return masks


def test_by_hand() -> None:
    expect(energy_in_mask(MAP, LEFT), 6 / 10)
    expect(top_area_in_mask(MAP, LEFT), 2 / 3)  # of 4, 3 and 2 the 3 lies outside
    expect(pointing_game(MAP, LEFT, tolerance=0), 1)
    expect(pointing_game(MAP, ~LEFT, tolerance=0), 0)
    expect(pointing_game(MAP, ~LEFT, tolerance=1), 1)


def test_what_a_sparse_map_leaves_open_is_guessed() -> None:
    sparse = torch.tensor([[[5.0, 0, 0], [0, 0, 0], [0, 0, 0]]])
    # One pixel is right, the other two are drawn from eight, of which two lie in the mask.
    expect(top_area_in_mask(sparse, LEFT), (1 + 2 * 2 / 8) / 3)


def test_ties_for_the_maximum_share_the_hit() -> None:
    tied = torch.tensor([[[1.0, 1.0, 1.0], [0, 0, 0], [0, 0, 0]]])
    expect(pointing_game(tied, LEFT, tolerance=0), 1 / 3)
    expect(pointing_game(tied, LEFT, tolerance=1), 2 / 3)


def test_the_tolerance_is_a_euclidean_distance() -> None:
    maps, masks = torch.zeros(3, 9, 9), torch.zeros(9, 9, dtype=torch.bool)
    masks[0, 0] = True
    for i, place in enumerate([(3, 4), (4, 4), (0, 5)]):
        maps[i][place] = 1
    expect(pointing_game(maps, masks, tolerance=5), 1, 0, 1)
    expect(pointing_game(maps, masks, tolerance=math.sqrt(32)), 1, 1, 1)
    expect(pointing_game(maps, masks, tolerance=1000), 1, 1, 1)


def test_an_empty_map_and_an_empty_mask() -> None:
    nothing, nowhere = torch.zeros(1, 3, 3), torch.zeros(3, 3, dtype=torch.bool)
    expect(energy_in_mask(nothing, LEFT), 0)
    expect(top_area_in_mask(nothing, LEFT), 1 / 3)
    expect(pointing_game(nothing, LEFT), 0)
    for metric in METRICS:
        expect(metric(torch.cat([MAP, nothing]), nowhere), math.nan, math.nan)


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_top_area_is_the_mean_over_all_orders_of_the_ties(number: int, levels: int) -> None:
    maps, masks = small_maps(number, levels, (1, 2, 3)), random_masks(number, (1, 2, 3))
    values, inside = maps.flatten().tolist(), masks.flatten().tolist()
    area = sum(inside)
    shares = []
    for shuffled in itertools.permutations(range(6)):
        ranked = sorted(shuffled, key=lambda i: -values[i])
        shares.append(sum(inside[i] for i in ranked[:area]) / area)
    expect(top_area_in_mask(maps, masks), sum(shares) / len(shares))


@given(st.integers(0, 2**32), st.integers(1, 4), st.floats(0, 6))
def test_pointing_measures_every_distance(number: int, levels: int, tolerance: float) -> None:
    maps, masks = small_maps(number, levels, (2, 5, 7)), random_masks(number, (2, 5, 7))
    expected = []
    for one, mask in zip(maps, masks, strict=True):
        maxima = (one == one.max()).nonzero().tolist() if one.any() else []
        objects = mask.nonzero().tolist()
        hits = [min(math.dist(m, o) for o in objects) <= tolerance for m in maxima]
        expected.append(sum(hits) / len(hits) if hits else 0.0)
    expect(pointing_game(maps, masks, tolerance), *expected)


@pytest.mark.parametrize("metric", METRICS)
@given(st.integers(0, 2**32), st.integers(-30, 30))
def test_neither_scale_nor_batch_matters(metric: Any, number: int, power: int) -> None:
    maps, masks = small_maps(number, 6, (3, 6, 5)), random_masks(number, (3, 6, 5))
    found = metric(maps, masks)
    assert found.dtype == torch.float64
    assert torch.equal(metric(maps * 2.0**power, masks), found)
    assert torch.equal(metric(maps[1:2], masks[1:2]), found[1:2])
    turned = metric(maps.flip(1).transpose(1, 2), masks.flip(1).transpose(1, 2))
    torch.testing.assert_close(turned, found)


@given(st.integers(0, 2**32))
def test_the_mask_and_its_complement_share_the_energy(number: int) -> None:
    maps, masks = small_maps(number, 6, (3, 6, 5)) + 1, random_masks(number, (3, 6, 5))
    masks[:, -1, -1] = False
    expect(energy_in_mask(maps, masks) + energy_in_mask(maps, ~masks), 1, 1, 1)


@given(st.integers(1, 6), st.integers(6, 20), st.integers(6, 20))
def test_the_cells_tile_the_image(n: int, height: int, width: int) -> None:
    cells = torch.stack([grid_cell(height, width, n, r, c) for r in range(n) for c in range(n)])
    assert (cells.sum(0) == 1).all()
    sizes = cells.any(2).sum(1), cells.any(1).sum(1)
    assert all(size.max() - size.min() <= 1 for size in sizes)


def test_a_cell_by_hand() -> None:
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[2:, :3] = True
    assert torch.equal(grid_cell(4, 6, 2, 1, 0), expected)
    expect(energy_in_mask(torch.ones(1, 4, 6), grid_cell(4, 6, 2, 1, 0)), 1 / 4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (energy_in_mask, quantus.RelevanceMassAccuracy),
        (top_area_in_mask, quantus.RelevanceRankAccuracy),
        (lambda maps, masks: pointing_game(maps, masks, 0), quantus.PointingGame),
    ],
)
def test_quantus_agrees_where_nothing_ties(ours: Any, theirs: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    maps, masks = torch.rand(5, 12, 10, generator=generator), random_masks(1, (5, 12, 10))
    metric = theirs(abs=False, normalise=False, disable_warnings=True)
    scores = metric(
        model=None,
        x_batch=np.zeros((5, 3, 12, 10)),
        y_batch=np.zeros(5, dtype=int),
        a_batch=maps[:, None].double().numpy(),
        s_batch=masks[:, None].numpy(),
        channel_first=True,
    )
    expect(ours(maps, masks), *map(float, scores))


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(N, H, W\)"):
        energy_in_mask(MAP[0], LEFT)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="negative, infinite or NaN"):
            top_area_in_mask(torch.full((1, 3, 3), wrong), LEFT)
    with pytest.raises(InputError, match=r"torch\.bool"):
        pointing_game(MAP, LEFT.float())
    with pytest.raises(InputError, match="one mask for each map"):
        pointing_game(MAP, LEFT[:2])
    with pytest.raises(SettingsError, match="tolerance=-1"):
        pointing_game(MAP, LEFT, -1)
    for n, row, column in [(2, 2, 0), (2, 0, -1), (0, 0, 0), (4, 0, 0)]:
        with pytest.raises(InputError, match="no cell"):
            grid_cell(3, 3, n, row, column)


def test_without_filling_the_top_area_ends_with_the_support() -> None:
    """Support 3, 2, 1 of which two lie inside; a mask of two pixels takes 3 and 2 alone."""
    one = torch.tensor([[[3.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    wide = torch.tensor([[[True, False, True], [True, True, True], [False, False, False]]])
    narrow = torch.tensor([[[True, False, True], [False, False, False], [False, False, False]]])
    assert top_area_in_mask(one, wide, fill=False).item() == pytest.approx(2 / 3)
    assert top_area_in_mask(one, narrow, fill=False).item() == 0.5
    assert top_area_in_mask(torch.zeros(1, 3, 3), wide, fill=False).item() == 0
