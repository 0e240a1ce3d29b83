"""Symmetric relevance gain: curves by hand, and drawn step by step with loops."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchfbi.errors import InputError, SettingsError, TargetError
from torchfbi.metrics import cells, gain_curves, patches, removal, symmetric_relevance_gain
from torchfbi.metrics.units import unit_order

FIRST = torch.zeros(1, dtype=torch.int64)
X = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])  # its mean is 1: the sum is 4 at both ends
MAP = torch.tensor([[[9.0, 3.0], [2.0, -1.0]]])


def brightness(images: Tensor) -> Tensor:
    """A network whose first class is the sum of all pixels over 16, and whose second is 1."""
    p = images.sum((1, 2, 3)) / 16
    return torch.stack([p, torch.ones_like(p)], 1)


def pixelwise(images: Tensor) -> Tensor:
    """A network of no linear kind that answers the same in any batch."""
    numbers = torch.arange(images[0].numel()).reshape(images[0].shape)
    return torch.stack([(images * w).sum((1, 2, 3)).sin() for w in (numbers, numbers.sqrt())], 1)


def expect(found: Tensor, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_pixels_by_hand() -> None:
    remove = removal(X, "mean")
    found = gain_curves(brightness, X, FIRST, MAP, patches(2, 2, 1), remove, steps=4)
    expect(found.share, [[0, 0.25, 0.5, 0.75, 1]])
    expect(found.insertion, torch.tensor([[4, 7, 6, 5, 4]]) / 4)
    expect(found.deletion, torch.tensor([[4, 1, 2, 3, 4]]) / 4)
    expect(found.gain(), [(6 + 4 + 2) / 4 / 4])


def test_the_difference_to_a_rival_is_not_scaled() -> None:
    remove, rivals = removal(X, "mean"), FIRST + 1
    found = gain_curves(brightness, X, FIRST, MAP, patches(2, 2, 1), remove, steps=4, rivals=rivals)
    expect(found.insertion, torch.tensor([[4, 7, 6, 5, 4]]) / 16 - 1)
    expect(found.gain(), [(6 + 4 + 2) / 16 / 4])


def test_units_are_ordered_by_their_mean_and_the_axis_is_the_area() -> None:
    units = torch.tensor([[0, 1], [1, 1]])
    maps = torch.tensor([[[4.0, 3.0], [3.0, 3.0]]])  # the sum of the second is larger
    found = gain_curves(brightness, X, FIRST, maps, units, removal(X, "mean"), steps=20)
    expect(found.share, [[0, 0.25, 1]])  # no more steps than units
    expect(found.insertion, torch.tensor([[4, 7, 4]]) / 4)
    expect(found.deletion, torch.tensor([[4, 1, 4]]) / 4)


def test_what_ties_is_ordered_by_the_second_map_and_then_at_random() -> None:
    maps = torch.tensor([[[0.0, 5.0], [0.0, 0.0]]]).double()
    then = torch.tensor([[[1.0, 0.0], [3.0, 1.0]]]).double()
    units = patches(2, 2, 1)[None]
    orders = {tuple(unit_order(maps, units, then, seed)[0].tolist()) for seed in range(50)}
    assert orders == {(2, 0, 1, 3), (3, 0, 1, 2)}
    assert unit_order(maps, units, then, 7).equal(unit_order(maps, units, then, 7))


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_the_order_is_total(number: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(number)
    maps = torch.randint(levels, (3, 4, 5), generator=generator).double()
    units = patches(4, 5, 1).expand(3, -1, -1)
    places = unit_order(maps, units, seed=number)
    assert torch.equal(places.sort(1).values, torch.arange(20).expand(3, 20))
    ranked = maps.flatten(1).gather(1, places.argsort(1))
    assert (ranked.diff(dim=1) <= 0).all()
    assert torch.equal(unit_order(maps[2:], units[2:], seed=number), places[2:])


def test_every_tied_unit_gets_every_place() -> None:
    nothing, units = torch.zeros(1, 2, 2).double(), patches(2, 2, 1)[None]
    places = torch.cat([unit_order(nothing, units, seed=seed) for seed in range(400)])
    assert (places.double().mean(0) - 1.5).abs().max() < 0.2


def test_all_is_removed_to_the_mean_colour_under_road() -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    everything = torch.ones(2, 8, 8, dtype=torch.bool)
    filled = removal(x, "road", seed=3)(torch.tensor([1, 0]), everything)
    colour = x.mean((2, 3), keepdim=True).flip(0)
    noise = filled - colour
    assert torch.allclose(noise[0], noise[1], atol=1e-6)
    assert 0.007 < noise.std() < 0.013


@settings(max_examples=30)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["blur", "mean", "road"]),
    st.integers(1, 5),
    st.booleans(),
)
def test_the_curves_drawn_step_by_step(number: int, kind: Any, steps: int, contrast: bool) -> None:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(3, 2, 6, 8, generator=generator, dtype=torch.float64)
    maps = torch.randn(3, 6, 8, generator=generator, dtype=torch.float64)
    target, units = torch.tensor([0, 1, 1]), patches(6, 8, 2)  # 12 units of 4 pixels
    rivals = 1 - target if contrast else None
    remove = removal(x, kind, number)
    options: Any = {"steps": steps, "seed": number, "rivals": rivals}
    found = symmetric_relevance_gain(pixelwise, x, target, maps, units, remove, chunk=5, **options)
    for i in range(3):
        means = [maps[i][units == u].mean().item() for u in range(12)]
        ranked = sorted(range(12), key=lambda u: -means[u])
        heights = []
        for step in range(steps + 1):
            first = ranked[: round(12 * step / steps)]
            named = torch.isin(units, torch.tensor(first, dtype=torch.int64))
            both = []
            for holes in (~named, named):
                answer = pixelwise(remove(torch.tensor([i]), holes[None]))[0]
                whole = pixelwise(x[i : i + 1])[0, target[i]]
                score = answer[0] - answer[1] if contrast else answer[target[i]] / whole
                both.append((-1) ** (contrast and int(target[i])) * score.item())
            heights.append((both[0] - both[1], round(12 * step / steps) / 12))
        area = sum(
            (a + b) / 2 * (end - start) for (a, start), (b, end) in itertools.pairwise(heights)
        )
        assert found[i].item() == pytest.approx(area, rel=1e-9, abs=1e-9)
    alone = symmetric_relevance_gain(
        pixelwise,
        x[1:2],
        target[1:2],
        maps[1:2],
        units,
        removal(x[1:2], kind, number),
        **(options | {"rivals": None if rivals is None else rivals[1:2]}),
    )
    torch.testing.assert_close(alone, found[1:2])


def test_what_it_costs() -> None:
    sizes: list[int] = []

    def counted(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        sizes.append(len(images))
        return brightness(images)

    x = torch.rand(2, 1, 16, 16)
    units = patches(16, 16, 2)
    symmetric_relevance_gain(counted, x, FIRST.repeat(2), x[:, 0], units, removal(x), chunk=7)
    assert sum(sizes) == 2 * 40
    assert max(sizes) == 7


def test_no_samples_give_no_values() -> None:
    nothing = torch.zeros(0, 3, 8, 8)
    found = symmetric_relevance_gain(
        brightness, nothing, FIRST[:0], nothing[:, 0], patches(8, 8), removal(nothing)
    )
    assert found.shape == (0,)


def test_cells_are_those_of_the_grid_pointing_game() -> None:
    from torchfbi.metrics.localisation import grid_cell

    for n in (1, 2, 3, 7):
        units = cells(11, 7, n)
        for i in range(n * n):
            assert (units == i).equal(grid_cell(11, 7, n, i // n, i % n))


def test_what_is_refused() -> None:
    def refused(error: type[Exception], match: str, **changes: Any) -> None:
        arguments = {
            "predict": brightness,
            "x": X,
            "target": FIRST,
            "maps": MAP,
            "units": patches(2, 2, 1),
            "remove": removal(X),
        }
        with pytest.raises(error, match=match):
            symmetric_relevance_gain(**(arguments | changes))

    refused(InputError, "infinite or NaN", maps=MAP / 0)
    refused(InputError, "enlarge the maps", then=MAP[:, :1])
    refused(InputError, "each pixel's unit", units=patches(2, 2, 1).float())
    refused(InputError, "each pixel's unit", units=patches(4, 4, 1))
    refused(InputError, "counted from 0", units=patches(2, 2, 1) - 1)
    refused(SettingsError, "steps=0", steps=0)
    refused(TargetError, "none of the 2 classes", rivals=FIRST + 2)
    with pytest.raises(SettingsError, match="unknown removal"):
        removal(X, "black")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="side=0"):
        patches(4, 4, 0)
    with pytest.raises(SettingsError, match="n=5"):
        cells(4, 4, 5)
