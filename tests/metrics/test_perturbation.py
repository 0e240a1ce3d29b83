"""Single deletion, the support alone and the oracle: by hand, and with loops."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchfbi.errors import InputError, SettingsError, TargetError
from torchfbi.metrics import (
    cells,
    greedy_oracle,
    patches,
    removal,
    single_deletion,
    support_alone,
    symmetric_relevance_gain,
)

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


# Single deletion: the mean colour is 0, so that a cell counts with the sum of its pixels.

CELLS = torch.tensor([[4.0, 3.0], [2.0, -9.0]])


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        ([[40.0, 30.0], [20.0, -10.0]], 1.0),
        ([[1.0, 2.0], [3.0, 4.0]], -1.0),
        ([[-3.0, -4.0], [-6.0, -5.0]], 0.8),
        ([[1.0, 1.0], [1.0, 1.0]], math.nan),
        ([[0.0, 0.0], [0.0, 0.0]], math.nan),
    ],
)
def test_cells_by_hand(energy: list[list[float]], expected: float) -> None:
    x = CELLS.repeat_interleave(3, 0).repeat_interleave(2, 1)[None, None]
    maps = torch.zeros(1, 6, 4)
    maps[:, ::3, ::2] = torch.tensor(energy)  # the sum counts, wherever in the cell it lies
    found = single_deletion(brightness, x, FIRST, maps, cells(6, 4, 2), removal(x, "mean"))
    expect(found, expected)


def test_a_network_that_misses_nothing() -> None:
    def deaf(images: Tensor) -> Tensor:
        return torch.full((len(images), 2), 0.5)

    x, maps = torch.rand(1, 3, 8, 8), torch.rand(1, 8, 8)
    assert single_deletion(deaf, x, FIRST, maps, cells(8, 8, 2), removal(x)).isnan().all()


# The support alone


def test_the_support_by_hand() -> None:
    x = torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]])  # its mean is 1
    support = torch.tensor([[[True, False], [False, True]]])
    alone = support_alone(brightness, x, FIRST, support, removal(x, "mean"))
    expect(alone.kept, (4 + 1 + 1 + 0) / 4)
    expect(alone.removed, (1 + 0 + 0 + 1) / 4)
    nothing, everything = torch.zeros_like(support), torch.ones_like(support)
    blurred = brightness(removal(x)(FIRST, everything))[0, 0].item() / 0.25
    expect(support_alone(brightness, x, FIRST, nothing, removal(x)).kept, blurred)
    expect(support_alone(brightness, x, FIRST, nothing, removal(x)).removed, 1)
    expect(support_alone(brightness, x, FIRST, everything, removal(x)).kept, 1)
    expect(support_alone(brightness, x, FIRST, everything, removal(x)).removed, blurred)


# The oracle


def test_the_oracle_orders_what_adds_up_by_how_much_it_adds() -> None:
    x = torch.tensor([[[[4.0, -1.0], [0.5, -3.5]]], [[[-1.0, 0.5], [2.0, -1.5]]]])  # mean 0
    found = greedy_oracle(
        brightness, x, FIRST.repeat(2), patches(2, 2, 1), removal(x, "mean"), at_once=1
    )
    assert found.tolist() == [[[4, 2], [3, 1]], [[2, 3], [4, 1]]]


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 4]))
def test_the_oracle_drawn_step_by_step(number: int, at_once: int) -> None:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(2, 2, 6, 6, generator=generator, dtype=torch.float64)
    target, units, remove = torch.tensor([1, 0]), cells(6, 6, 3), removal(x)
    found = greedy_oracle(pixelwise, x, target, units, remove, at_once=at_once, chunk=7)
    for i in range(2):
        taken: list[int] = []
        while len(taken) < 9:
            gains = {}
            for unit in set(range(9)) - set(taken):
                named = torch.isin(units, torch.tensor([*taken, unit]))
                kept, removed = (
                    pixelwise(remove(torch.tensor([i]), holes[None]))[0, target[i]].item()
                    for holes in (~named, named)
                )
                gains[unit] = kept - removed
            taken += sorted(gains, key=lambda unit: -gains[unit])[:at_once]
        ranks = {unit: 9 - place for place, unit in enumerate(taken)}
        assert found[i].tolist() == [[ranks[u] for u in row] for row in units.tolist()]


def test_no_map_beats_the_exhaustive_oracle_where_units_add_up() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 1, 2, 2, generator=generator, dtype=torch.float64)
    units, remove = patches(2, 2, 1), removal(x, "mean")
    every = torch.tensor(list(itertools.permutations(range(4)))).double().view(-1, 2, 2)
    best = max(
        symmetric_relevance_gain(brightness, x, FIRST, m[None], units, remove).item() for m in every
    )
    oracle = greedy_oracle(brightness, x, FIRST, units, remove, at_once=1)
    found = symmetric_relevance_gain(brightness, x, FIRST, oracle, units, remove)
    assert abs(found.item()) == pytest.approx(abs(best))


# All


def deletion(x: Tensor, target: Tensor, maps: Tensor, **options: Any) -> Tensor:
    return single_deletion(pixelwise, x, target, maps, cells(6, 5, 2), removal(x), **options)


def alone(x: Tensor, target: Tensor, maps: Tensor, **options: Any) -> Tensor:
    return support_alone(pixelwise, x, target, maps > 1, removal(x), **options).kept


@pytest.mark.parametrize("metric", [deletion, alone])
@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_neither_batch_nor_chunk_matters(metric: Any, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(3, 2, 6, 5, generator=generator, dtype=torch.float64)
    maps = torch.randint(4, (3, 6, 5), generator=generator).float()
    target = torch.tensor([0, 1, 1])
    found = metric(x, target, maps)
    assert found.shape == (3,)
    assert found.dtype == torch.float64
    torch.testing.assert_close(metric(x, target, maps, chunk=5), found, equal_nan=True)
    single = metric(x[1:2], target[1:2], maps[1:2])
    torch.testing.assert_close(single, found[1:2], equal_nan=True)


def test_no_samples_give_no_values() -> None:
    nothing, target = torch.zeros(0, 2, 6, 5), FIRST[:0]
    assert deletion(nothing, target, nothing[:, 0]).shape == (0,)
    assert alone(nothing, target, nothing[:, 0]).shape == (0,)
    assert greedy_oracle(pixelwise, nothing, target, cells(6, 5, 2), removal(nothing)).shape == (
        0,
        6,
        5,
    )


@pytest.mark.parametrize(
    ("metric", "passes"),
    [
        (lambda p, x, t, r: single_deletion(p, x, t, x[:, 0], cells(14, 14, 7), r, chunk=5), 49),
        (lambda p, x, t, r: support_alone(p, x, t, x[:, 0] > 0.5, r, chunk=5), 3),
        (
            lambda p, x, t, r: greedy_oracle(p, x, t, cells(14, 14, 7), r, chunk=5),
            2 * sum(range(7, 50, 7)),
        ),
    ],
)
def test_what_it_costs(metric: Any, passes: int) -> None:
    sizes: list[int] = []

    def counted(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        sizes.append(len(images))
        return brightness(images)

    x = torch.rand(2, 1, 14, 14)
    metric(counted, x, torch.tensor([0, 1]), removal(x))
    assert sum(sizes) == 2 * passes
    assert max(sizes) == 5


def test_what_is_refused() -> None:
    x, units = torch.rand(1, 1, 4, 4), cells(4, 4, 2)
    remove, maps = removal(x), x[:, 0]

    def refused(error: type[Exception], match: str, **changes: Any) -> None:
        arguments = {"predict": brightness, "x": x, "target": FIRST, "maps": maps, "units": units}
        with pytest.raises(error, match=match):
            single_deletion(**(arguments | {"remove": remove} | changes))

    refused(InputError, "floats", x=x[0])
    refused(InputError, "one class number", target=torch.tensor([0, 1]))
    refused(InputError, "one class number", target=torch.tensor([0.0]))
    refused(InputError, "1 samples", maps=maps.repeat(2, 1, 1))
    refused(InputError, "enlarge the maps", maps=torch.ones(1, 1, 2))
    refused(InputError, "probabilities", predict=lambda images: images)
    refused(TargetError, "none of the 2 classes", target=FIRST + 2)
    refused(TargetError, "none of the 2 classes", target=FIRST - 1)
    refused(SettingsError, "chunk=0", chunk=0)
    two, both = x.repeat(2, 1, 1, 1), torch.stack([units, cells(4, 4, 3)])
    refused(
        InputError,
        "different numbers of units",
        x=two,
        target=FIRST.repeat(2),
        maps=two[:, 0],
        units=both,
    )
    with pytest.raises(InputError, match=r"as torch\.bool"):
        support_alone(brightness, x, FIRST, maps, remove)
    with pytest.raises(SettingsError, match="at_once=0"):
        greedy_oracle(brightness, x, FIRST, units, remove, at_once=0)
