"""Insertion, deletion and single patches: curves known in closed form, and drawn step by step."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchfbi.blur import blur
from torchfbi.errors import InputError, SettingsError, TargetError
from torchfbi.metrics import deletion, insertion, patch_correlation, road
from torchfbi.metrics.ranks import order

FIRST = torch.zeros(1, dtype=torch.int64)


def brightness(images: Tensor) -> Tensor:
    """A network whose first class is the sum of all pixels over 16, and whose second is not."""
    p = images.sum((1, 2, 3)) / 16
    return torch.stack([p, 1 - p], 1)


def pixelwise(images: Tensor) -> Tensor:
    """A network of no linear kind that answers the same in any batch."""
    numbers = torch.arange(images[0].numel()).reshape(images[0].shape)
    return torch.stack([(images * w).sum((1, 2, 3)).sin() for w in (numbers, numbers.sqrt())], 1)


def expect(found: Tensor, *values: float) -> None:
    expected = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, equal_nan=True)


X = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])
MAP = torch.tensor([[[9.0, 3.0], [2.0, 1.0]]])
SPARSE = torch.tensor([[[9.0, 0.0], [0.0, 0.0]]])


# Curves by hand: the mean colour is 1, so the sum is 4 at both ends.


def test_the_whole_image() -> None:
    options: Any = {"baseline": "mean", "steps": 4}
    expect(insertion(brightness, X, FIRST, MAP, **options), (2 + 7 + 6 + 5 + 2) / 4 / 16)
    expect(deletion(brightness, X, FIRST, MAP, **options), (2 + 1 + 2 + 3 + 2) / 4 / 16)
    expect(insertion(brightness, X, FIRST + 1, MAP, **options), 1 - 22 / 4 / 16)


def test_a_matched_area_ends_the_curve() -> None:
    options: Any = {"baseline": "mean", "steps": 2, "area": 0.5}
    expect(insertion(brightness, X, FIRST, MAP, **options), (4 / 2 + 7 + 6 / 2) / 2 / 16)
    expect(deletion(brightness, X, FIRST, MAP, **options), (4 / 2 + 1 + 2 / 2) / 2 / 16)


def test_a_sparse_map_rests_where_its_support_ends() -> None:
    options: Any = {"baseline": "mean", "steps": 4, "area": 1.0}
    expect(insertion(brightness, X, FIRST, SPARSE, **options), (2 + 7 + 7 + 7 + 3.5) / 4 / 16)
    expect(deletion(brightness, X, FIRST, SPARSE, **options), (2 + 1 + 1 + 1 + 0.5) / 4 / 16)


def test_an_empty_map_shows_and_removes_nothing() -> None:
    bright = torch.full((1, 1, 2, 2), 3.0)
    nothing = torch.zeros(1, 2, 2)
    altered = brightness(blur(bright, 1.0))[:, 0].item(), brightness(bright)[:, 0].item()
    expect(insertion(brightness, bright, FIRST, nothing, area=0.5), altered[0])
    expect(deletion(brightness, bright, FIRST, nothing, area=0.5), altered[1])


def test_each_sample_may_have_its_own_area() -> None:
    x, maps, target = X.repeat(2, 1, 1, 1), MAP.repeat(2, 1, 1), FIRST.repeat(2)
    areas = torch.tensor([0.25, 0.5])
    both = insertion(brightness, x, target, maps, area=areas, steps=2)
    for i in range(2):
        alone = insertion(brightness, X, FIRST, MAP, area=areas[i].item(), steps=2)
        assert both[i] == alone[0]


def test_ties_are_random_and_seeded() -> None:
    def score(seed: int) -> float:
        tied = torch.ones(1, 2, 2)
        found = insertion(brightness, X, FIRST, tied, baseline="mean", steps=4, seed=seed)
        return found.item()

    scores = [score(seed) for seed in range(300)]
    assert score(7) == scores[7]
    # The bright pixel comes first, second, third or last: 22, 18, 14 or 10 in quarters of 16.
    assert {round(64 * s) for s in scores} == {22, 18, 14, 10}
    assert abs(64 * sum(scores) / len(scores) - 16) < 1


@pytest.mark.parametrize("metric", [insertion, deletion])
@given(
    st.integers(0, 2**32),
    st.sampled_from(["blur", "mean"]),
    st.sampled_from([None, 0.2, 0.6, 1.0]),
    st.integers(1, 9),
)
def test_the_curve_drawn_step_by_step(
    metric: Any, number: int, baseline: Any, area: float | None, steps: int
) -> None:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(1, 3, 5, 4, generator=generator, dtype=torch.float64)
    maps = torch.randint(4, (1, 5, 4), generator=generator).float()
    other = blur(x, 4 / 16) if baseline == "blur" else x.mean((2, 3), keepdim=True).expand_as(x)
    start, end = (other, x) if metric is insertion else (x, other)
    ranked = order(maps, number).flatten().argsort()
    heights = []
    for step in range(steps + 1):
        count = round((area or 1) * 20 * step / steps)
        pixels = [p for p in ranked[:count].tolist() if area is None or maps.flatten()[p] > 0]
        image = start.clone()
        image.flatten(2)[..., pixels] = end.flatten(2)[..., pixels]
        heights.append(pixelwise(image)[0, 1].item())
    expected = sum((a + b) / 2 for a, b in itertools.pairwise(heights)) / steps
    target = torch.tensor([1])
    found = metric(
        pixelwise, x, target, maps, baseline=baseline, area=area, steps=steps, seed=number
    )
    expect(found, expected)


@pytest.mark.parametrize("metric", [insertion, deletion, patch_correlation])
@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(-30, 30))
def test_neither_scale_nor_batch_nor_chunk_matters(metric: Any, number: int, power: int) -> None:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(3, 2, 6, 5, generator=generator, dtype=torch.float64)
    maps = torch.randint(4, (3, 6, 5), generator=generator).float()
    target = torch.tensor([0, 1, 1])
    found = metric(pixelwise, x, target, maps)
    assert found.shape == (3,)
    assert found.dtype == torch.float64
    again = metric(pixelwise, x, target, maps * 2.0**power, chunk=5)
    torch.testing.assert_close(again, found, equal_nan=True)
    alone = metric(pixelwise, x[1:2], target[1:2], maps[1:2])
    torch.testing.assert_close(alone, found[1:2], equal_nan=True)


@pytest.mark.parametrize("metric", [insertion, deletion, patch_correlation, road])
def test_no_samples_give_no_values(metric: Any) -> None:
    nothing = torch.zeros(0, 3, 8, 8)
    assert metric(brightness, nothing, FIRST[:0], nothing[:, 0]).shape == (0,)


@pytest.mark.parametrize(
    ("metric", "passes"), [(insertion, 33), (deletion, 33), (patch_correlation, 16)]
)
def test_what_it_costs(metric: Any, passes: int) -> None:
    sizes: list[int] = []

    def counted(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        sizes.append(len(images))
        return brightness(images)

    metric(counted, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), torch.rand(2, 8, 8), chunk=5)
    assert sum(sizes) == 2 * passes
    assert max(sizes) == 5


# Patches: the mean colour is 0, so that a patch counts with the sum of its pixels.

PATCHES = torch.tensor([[4.0, 3.0], [2.0, -9.0]])


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        ([[40.0, 30.0], [20.0, 10.0]], 1.0),
        ([[1.0, 2.0], [3.0, 4.0]], -1.0),
        ([[4.0, 3.0], [1.0, 2.0]], 0.8),
        ([[1.0, 1.0], [1.0, 1.0]], math.nan),
        ([[0.0, 0.0], [0.0, 0.0]], math.nan),
    ],
)
def test_patches_by_hand(energy: list[list[float]], expected: float) -> None:
    x = PATCHES.repeat_interleave(3, 0).repeat_interleave(2, 1)[None, None]
    maps = torch.zeros(1, 6, 4)
    maps[:, ::3, ::2] = torch.tensor(energy)  # the sum counts, wherever in the patch it lies
    found = patch_correlation(brightness, x, FIRST, maps, baseline="mean", grid=2)
    expect(found, expected)


def test_a_network_that_misses_nothing() -> None:
    def deaf(images: Tensor) -> Tensor:
        return torch.full((len(images), 2), 0.5)

    found = patch_correlation(deaf, torch.rand(1, 3, 8, 8), FIRST, torch.rand(1, 8, 8))
    assert found.isnan().all()


def test_what_is_refused() -> None:
    def refused(error: type[Exception], match: str, **changes: Any) -> None:
        arguments = {"predict": brightness, "x": X, "target": FIRST, "maps": MAP} | changes
        with pytest.raises(error, match=match):
            insertion(**arguments)

    refused(InputError, "floats", x=X[0])
    refused(InputError, "one class number", target=torch.tensor([0, 1]))
    refused(InputError, "one class number", target=torch.tensor([0.0]))
    refused(InputError, "1 samples", maps=MAP.repeat(2, 1, 1))
    refused(InputError, "enlarge the maps", maps=torch.ones(1, 1, 2))
    refused(InputError, "signed attributions", maps=-MAP)
    refused(InputError, "probabilities", predict=lambda images: images)
    refused(TargetError, "none of the 2 classes", target=FIRST + 2)
    refused(TargetError, "none of the 2 classes", target=FIRST - 1)
    refused(SettingsError, "steps=0", steps=0)
    refused(SettingsError, "chunk=0", chunk=0)
    for area in (0.0, 1.5, torch.tensor([0.5, 0.5])):
        refused(SettingsError, "share of the image", area=area)
    refused(SettingsError, "unknown baseline", baseline="black")
    with pytest.raises(SettingsError, match="grid=3"):
        patch_correlation(brightness, X, FIRST, MAP, grid=3)
