"""Roughness, grain and specks by hand, and on noise whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from torchfbi.errors import InputError
from torchfbi.metrics import fine_grain, isolated, total_variation


def expect(found: Tensor, *values: float, atol: float = 1e-12) -> None:
    expected = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=atol, equal_nan=True)


def dots(*places: tuple[int, int], side: int = 9) -> Tensor:
    one = torch.zeros(1, side, side)
    for row, column in places:
        one[0, row, column] = 2.0
    return one


NOISE = torch.rand(4, 128, 128, generator=torch.Generator().manual_seed(0))


def test_total_variation_by_hand() -> None:
    block = torch.zeros(1, 9, 9)
    block[0, 3:6, 3:6] = 5.0  # its outline is 12 long, its area 9
    ramp = torch.tensor([[[1.0, 2.0, 4.0]]])
    expect(total_variation(dots((4, 4), (1, 7))), 4)
    expect(total_variation(block), 12 / 9)
    expect(total_variation(ramp), 3 / 7)
    expect(total_variation(torch.stack([torch.ones(3, 3), torch.zeros(3, 3)])), 0, math.nan)


def test_fine_grain_by_hand() -> None:
    place = torch.arange(16.0)

    def wave(cycles: int) -> Tensor:  # along a row of 16 pixels
        return (1 + torch.cos(2 * math.pi * cycles * place / 16)).expand(1, 16, 16)

    expect(fine_grain(wave(4)), 0, atol=1e-9)  # just half of the highest
    expect(fine_grain(wave(5)), 1, atol=1e-9)
    expect(fine_grain(wave(2) + wave(7)), 1 / 2, atol=1e-6)
    diagonal = torch.cos(2 * math.pi * 3 * (place + place[:, None]) / 16)[None] + 1
    expect(fine_grain(diagonal), 1, atol=1e-9)  # 3 along both are more than 4
    expect(fine_grain(torch.ones(1, 4, 4)), math.nan)


def test_fine_grain_of_noise_is_the_share_of_such_frequencies() -> None:
    expect(fine_grain(NOISE).mean(0, keepdim=True), 1 - math.pi / 16, atol=0.01)


def test_isolated_by_hand() -> None:
    maps = torch.cat([dots((0, 0), (1, 1), (4, 4), (8, 0)), dots((4, 4)), dots()])
    expect(isolated(maps, 1.0), 2 / 4, 1, math.nan)


def test_isolated_looks_at_the_strongest() -> None:
    maps = dots((2, 2), (2, 3), (6, 6))
    maps[0, 6, 6] = 1.0
    maps[0, 8] = 0.5
    expect(isolated(maps, 3 / 81), 1 / 3)
    expect(isolated(maps, 2 / 81), 0)


def test_isolated_of_noise_is_the_chance_of_no_neighbour() -> None:
    expect(isolated(NOISE).mean(0, keepdim=True), 0.95**8, atol=0.02)


@pytest.mark.parametrize("metric", [total_variation, fine_grain, isolated])
def test_scale_does_not_count_and_other_tensors_are_refused(
    metric: Callable[[Tensor], Tensor],
) -> None:
    expect(metric(7 * NOISE), *metric(NOISE).tolist(), atol=1e-9)
    assert metric(NOISE[:0]).shape == (0,)
    with pytest.raises(InputError, match="negative"):
        metric(-NOISE)
