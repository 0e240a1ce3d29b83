"""Seeds, masking and top maps, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchfbi import Settings
from torchfbi.engine import select as fast
from torchfbi.engine.scratch import Scratch
from torchfbi.method.seeds import seed
from torchfbi.method.selection import select

SEEDS = ["paper", "one-hot", "contrast"]
LOW_PRECISION = [torch.float16, torch.bfloat16]


def tensor(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Seeds

E5 = math.exp(5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("paper", [3.0, -2.0, -2.0]),
        ("one-hot", [1.0, 0.0, 0.0]),
        ("contrast", [1.0, -0.75 * E5 / (E5 + 1), -0.75 / (E5 + 1)]),
    ],
)
def test_seeds_by_hand(kind: Any, expected: list[float]) -> None:
    torch.testing.assert_close(seed(tensor([1, 3, -2]), torch.tensor([0]), kind), tensor(expected))


@given(st.integers(0, 2**32), st.integers(2, 20))
def test_contrast_is_the_class_minus_three_quarters_of_its_rivals(
    number: int, classes: int
) -> None:
    torch.manual_seed(number)
    z, c = 3 * torch.randn(4, classes, dtype=torch.float64), torch.randint(classes, (4,))
    p = z.softmax(1)
    rows = torch.arange(4)
    expected = -p / (1 - p[rows, c])[:, None] * 0.75
    expected[rows, c] = 1
    torch.testing.assert_close(seed(z, c, "contrast"), expected)


def test_contrast_stays_finite_when_the_class_is_certain() -> None:
    answer = seed(tensor([1e4, 1, 1], [1, 1e4, 0]), torch.tensor([0, 0]), "contrast")
    torch.testing.assert_close(answer, tensor([1, -0.375, -0.375], [1, -0.75, 0]))


@pytest.mark.parametrize("kind", SEEDS)
def test_a_single_class_has_no_rivals(kind: Any) -> None:
    expected = tensor([-2.0]) if kind == "paper" else tensor([1.0])
    torch.testing.assert_close(seed(tensor([-2.0]), torch.tensor([0]), kind), expected)


@pytest.mark.parametrize("kind", SEEDS)
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_seeds_keep_the_dtype(kind: Any, dtype: torch.dtype) -> None:
    assert seed(tensor([1, 2, 3]).to(dtype), torch.tensor([1]), kind).dtype == dtype


# Selection at a feature

SIGNAL = tensor([[[3.0, -1.0]], [[2.0, 2.0]], [[-4.0, 1.0]], [[0.0, 0.5]]])
ACTIVATION = tensor([[[1.0, 2.0]], [[0.5, 1.0]], [[1.0, -1.0]], [[9.0, 9.0]]])


def test_the_paper_keeps_contributions_above_tau() -> None:
    """p = 3 -2, 1 2, -4 -1, 0 4.5; maps of signal 3, 2, 0, .5 are ranked by their sum."""
    rule = Settings.paper(tau=1.0, k=0.5)
    selected, maps = select(SIGNAL, ACTIVATION, rule)
    assert selected.tolist() == [[[[3.0, 0.0]], [[0.0, 2.0]], [[0.0, 0.0]], [[0.0, 0.0]]]]
    assert maps is not None
    assert maps.tolist() == [[True, True, False, False]]
    selected, maps = select(SIGNAL, ACTIVATION, rule, top_k=False)
    assert selected.tolist() == [[[[3.0, 0.0]], [[0.0, 2.0]], [[0.0, 0.0]], [[0.0, 0.5]]]]
    assert maps is None


@pytest.mark.parametrize("gates", ["rectify", "guided"])
def test_where_gates_rectify_only_positive_signals_go_on(gates: Any) -> None:
    """p = (-2)(-3) = 6 exceeds tau, yet a negative signal does not go on; nor does it without."""
    s, a = tensor([-2.0, 2.0]), tensor([-3.0, 3.0])
    for tau in (0.0, 1.0, None):
        assert select(s, a, Settings(gates=gates, tau=tau), top_k=False)[0].tolist() == [[0.0, 2.0]]


def test_elsewhere_negative_signals_of_negative_activations_go_on_too() -> None:
    """p = 6, 6, -6; nothing is selected without tau."""
    s, a = tensor([-2.0, 2.0, 2.0]), tensor([-3.0, 3.0, -3.0])
    assert select(s, a, Settings(tau=1.0), top_k=False)[0].tolist() == [[-2.0, 2.0, 0.0]]
    assert select(s, a, Settings(), top_k=False)[0] is s


def test_signed_maps_are_ranked_by_their_signed_sum() -> None:
    """Signals of 2, 4, -3, 0.5 in all."""
    selected, maps = select(SIGNAL, ACTIVATION, Settings(k=0.5))
    assert maps is not None
    assert maps.tolist() == [[True, True, False, False]]
    assert selected.tolist() == [[[[3.0, -1.0]], [[2.0, 2.0]], [[0.0, 0.0]], [[0.0, 0.0]]]]


@pytest.mark.parametrize("settings", [Settings.paper(), Settings.paper(tau=0.0), Settings(tau=0.5)])
def test_the_engine_selects_the_same_over_the_signal(settings: Settings) -> None:
    signal, activation = 5 * torch.randn(2, 2, 4, 5, 5)
    expected, maps = select(signal, activation, settings)
    found, again = fast.select(signal.clone(), activation, settings, True, Scratch())
    assert torch.equal(found, expected)
    assert maps is not None
    assert again is not None
    assert torch.equal(again, maps)


@pytest.mark.parametrize(
    ("k", "maps", "kept"),
    [(1e-6, 8, 1), (0.1, 1, 1), (0.5, 1, 1), (0.5, 5, 3), (0.1, 30, 3), (0.07, 100, 7),
     (0.55, 100, 55), (0.999, 8, 8), (1.0, 8, 8)],
)  # fmt: skip
def test_ties_keep_exactly_the_wanted_number_of_maps(k: float, maps: int, kept: int) -> None:
    signal = torch.ones(2, maps, 3, 3)
    selected, chosen = select(signal, signal, Settings(k=k))
    assert chosen.sum(1).tolist() == [kept, kept]
    assert torch.equal(selected.flatten(2).any(2), chosen)


def test_maps_may_lie_along_any_dimension() -> None:
    rule = Settings(tau=0.1, k=0.5)
    signal, activation = torch.randn(2, 2, 6, 4, 5)
    expected, maps = select(signal, activation, rule)
    last = [t.movedim(1, 3) for t in (signal, activation)]
    selected, chosen = select(*last, rule, channel=3)
    assert torch.equal(selected.movedim(3, 1), expected)
    assert torch.equal(chosen, maps)


def test_no_selection_depends_on_its_batch() -> None:
    signal, activation = torch.randn(2, 3, 6, 4, 5)
    for rule in (Settings.paper(tau=0.1), Settings.contrast(tau=0.1, k=0.3)):
        together, _ = select(signal, activation, rule)
        for i in range(3):
            alone, _ = select(signal[i : i + 1], activation[i : i + 1], rule)
            assert torch.equal(together[i : i + 1], alone)
