"""Seeds, top maps and the evidence gate, by hand and against an exact sort."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchfbi import Settings, Threshold
from torchfbi.seeds import seed
from torchfbi.selection import gate_by_evidence, select

SEEDS = ["paper", "one-hot", "centered", "contrast"]
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
        ("centered", [1.0, -0.5, -0.5]),
        ("contrast", [1.0, -E5 / (E5 + 1), -1 / (E5 + 1)]),
    ],
)
def test_seeds_by_hand(kind: Any, expected: list[float]) -> None:
    torch.testing.assert_close(seed(tensor([1, 3, -2]), torch.tensor([0]), kind), tensor(expected))


@given(st.integers(0, 2**32), st.integers(2, 20))
def test_contrast_is_the_class_minus_its_rivals(number: int, classes: int) -> None:
    torch.manual_seed(number)
    z, c = 3 * torch.randn(4, classes, dtype=torch.float64), torch.randint(classes, (4,))
    p = z.softmax(1)
    rows = torch.arange(4)
    expected = -p / (1 - p[rows, c])[:, None]
    expected[rows, c] = 1
    torch.testing.assert_close(seed(z, c, "contrast"), expected)


@given(st.integers(0, 2**32), st.integers(2, 20))
def test_seeds_against_rivals_sum_to_zero_and_ignore_a_constant(number: int, classes: int) -> None:
    torch.manual_seed(number)
    z, c = torch.randn(4, classes, dtype=torch.float64), torch.randint(classes, (4,))
    for kind in ("centered", "contrast"):
        torch.testing.assert_close(seed(z, c, kind).sum(1), torch.zeros(4, dtype=torch.float64))
        torch.testing.assert_close(seed(z + 100, c, kind), seed(z, c, kind))


def test_contrast_stays_finite_when_the_class_is_certain() -> None:
    answer = seed(tensor([1e4, 1, 1], [1, 1e4, 0]), torch.tensor([0, 0]), "contrast")
    torch.testing.assert_close(answer, tensor([1, -0.5, -0.5], [1, -1, 0]))


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


def test_the_positive_rule_keeps_contributions_above_tau() -> None:
    """p = 3 -2, 1 2, -4 -1, 0 4.5; maps of signal 3, 2, 0, .5 are ranked by their sum."""
    rule = Settings.paper(tau=1.0, k=0.5)
    selected, maps = select(SIGNAL, ACTIVATION, rule)
    assert selected.tolist() == [[[[3.0, 0.0]], [[0.0, 2.0]], [[0.0, 0.0]], [[0.0, 0.0]]]]
    assert maps.tolist() == [[True, True, False, False]]


def test_the_signed_rule_keeps_large_contributions_of_both_signs() -> None:
    """|p| > 1 keeps p = 3 -2, 2, -4, 4.5; maps of contribution 1, 2, -4, 4.5."""
    rule = Settings(signs="signed", threshold=Threshold("absolute", 1.0), k=0.5)
    selected, maps = select(SIGNAL, ACTIVATION, rule)
    assert selected.tolist() == [[[[0.0, 0.0]], [[0.0, 2.0]], [[0.0, 0.0]], [[0.0, 0.5]]]]
    assert maps.tolist() == [[False, True, False, True]]
    selected, maps = select(SIGNAL, ACTIVATION, rule, top_k=False)
    assert selected.tolist() == [[[[3.0, -1.0]], [[0.0, 2.0]], [[-4.0, 0.0]], [[0.0, 0.5]]]]
    assert maps is None


def test_shrunk_entries_come_and_go_gradually() -> None:
    """p is 3, -2, 1, 2, -4, -1, 0, 4.5: what exceeds 1.5 keeps the share 1 - 1.5 / |p|."""
    settings = Settings(threshold=Threshold("absolute", 1.5), shrink=True)
    selected, _ = select(SIGNAL, ACTIVATION, settings)
    expected = tensor([[[1.5, -0.25]], [[0.0, 0.5]], [[-2.5, 0.0]], [[0.0, 0.5 * 2 / 3]]])
    torch.testing.assert_close(selected, expected)
    (positive, _) = select(SIGNAL, ACTIVATION, settings.override(signs="positive"))
    torch.testing.assert_close(positive, expected.clamp(min=0) * (ACTIVATION > 0))


@given(st.integers(0, 2**32), st.sampled_from([torch.float64, torch.float32]))
def test_shrinking_keeps_the_same_entries(number: int, dtype: torch.dtype) -> None:
    torch.manual_seed(number)
    signal, activation = torch.randn(2, 2, 4, 5, 5, dtype=dtype)
    for settings in (Settings.contrast(), Settings.contrast(signs="positive")):
        hard, _ = select(signal, activation, settings.override(shrink=False))
        for overwrite in (False, True):
            soft, _ = select(signal.clone(), activation, settings, overwrite=overwrite)
            assert torch.equal(soft != 0, hard != 0)
            assert (soft * hard >= 0).all()
            assert (soft.abs() <= hard.abs()).all()


def test_positive_signals_of_negative_activations_are_rectified_too() -> None:
    """p = (-2)(-3) = 6 exceeds the threshold, yet a negative signal does not go on."""
    rule = Settings(signs="positive", threshold=Threshold("absolute", 0.0))
    assert select(tensor([-2.0, 2.0]), tensor([-3.0, 3.0]), rule, top_k=False)[0].tolist() == [
        [0.0, 2.0]
    ]


@pytest.mark.parametrize("rank", ["activation", "contribution"])
@pytest.mark.parametrize(
    ("k", "maps", "kept"),
    [(1e-6, 8, 1), (0.1, 1, 1), (0.5, 1, 1), (0.5, 5, 3), (0.1, 30, 3), (0.07, 100, 7),
     (0.55, 100, 55), (0.999, 8, 8), (1.0, 8, 8)],
)  # fmt: skip
def test_ties_keep_exactly_the_wanted_number_of_maps(
    rank: Any, k: float, maps: int, kept: int
) -> None:
    signal = torch.ones(2, maps, 3, 3)
    selected, chosen = select(signal, signal, Settings(k=k, rank=rank))
    assert chosen.sum(1).tolist() == [kept, kept]
    assert torch.equal(selected.flatten(2).any(2), chosen)


def test_maps_may_lie_along_any_dimension() -> None:
    rule = Settings(threshold=Threshold("mass", 0.9), k=0.5)
    signal, activation = torch.randn(2, 2, 6, 4, 5)
    expected, maps = select(signal, activation, rule)
    last = [t.movedim(1, 3) for t in (signal, activation)]
    selected, chosen = select(*last, rule, channel=3)
    assert torch.equal(selected.movedim(3, 1), expected)
    assert torch.equal(chosen, maps)


def test_no_selection_depends_on_its_batch() -> None:
    signal, activation = torch.randn(2, 3, 6, 4, 5)
    for rule in (Settings.paper(tau=0.1), Settings.contrast(k=0.3)):
        together, _ = select(signal, activation, rule)
        for i in range(3):
            alone, _ = select(signal[i : i + 1], activation[i : i + 1], rule)
            assert torch.equal(together[i : i + 1], alone)


# The evidence gate and the image

# e = 4, 1; -3, 0: the largest is 4.
PLACES = tensor([[[2.0, 1.0], [-5.0, 1.0]], [[1.0, 1.0], [1.0, -1.0]]])
VALUES = tensor([[[1.0, 2.0], [1.0, 1.0]], [[2.0, -1.0], [2.0, 1.0]]])


@pytest.mark.parametrize(
    ("gate", "power", "weights"),
    [
        (0.0, 0.0, [[1.0, 1.0], [0.0, 0.0]]),
        (0.2, 1.0, [[1.0, 0.25], [0.0, 0.0]]),
        (0.2, 2.0, [[1.0, 0.0625], [0.0, 0.0]]),
        (0.25, 0.0, [[1.0, 0.0], [0.0, 0.0]]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *LOW_PRECISION])
def test_the_gate_weighs_positions_by_their_evidence(
    gate: float, power: float, weights: Any, dtype: torch.dtype
) -> None:
    rule = Settings(evidence_gate=gate, evidence_power=power)
    gated = gate_by_evidence(PLACES.to(dtype), VALUES.to(dtype), rule, 1)
    assert torch.equal(gated, (PLACES * tensor(weights)).to(dtype))


def test_without_positive_evidence_nothing_goes_on() -> None:
    rule = Settings(evidence_gate=0.0)
    for signal in (-torch.rand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)):
        assert not gate_by_evidence(signal, torch.rand(2, 3, 4, 4), rule, 1).any()
