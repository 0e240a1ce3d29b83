"""Seeds, thresholds, top maps and the evidence gate, by hand and against an exact sort."""

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
from torchfbi.selection import cut, gate_by_evidence, select

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


# Thresholds: t lies just below the exact one, the smallest entry that has to be kept.

BIN = 2 ** (-1 / 128)
THRESHOLDS = [
    Threshold(kind, value)
    for kind in ("mass", "quantile")
    for value in (0.05, 0.5, 0.9, 0.98, 0.999)
]


def exact(p: Tensor, threshold: Threshold, slack: float) -> float:
    """The smallest of the fewest entries that hold the share, up to a share of ``slack``."""
    ordered = p.double().clamp(min=0).sort(descending=True).values
    if threshold.kind == "mass":
        holds, wanted = ordered.cumsum(0), threshold.value * ordered.sum().item()
    else:
        holds, wanted = torch.arange(1, len(p) + 1.0), (1 - threshold.value) * len(p)
    first = int((holds < wanted * (1 + slack)).sum())
    return ordered[min(first, len(p) - 1)].item()


def contributions(number: int, size: int, spread: float, dtype: torch.dtype) -> Tensor:
    """Positive and negative numbers over many orders of magnitude, with ties and zeros."""
    torch.manual_seed(number)
    p = torch.exp2(spread * torch.randn(3, size, dtype=torch.float64)).clamp(max=3e4)
    p = p * (torch.rand(3, size) - 0.3).sign() * (torch.rand(3, size) > 0.2)
    return torch.cat([p, p[:, : size // 3]], 1).to(dtype)


@given(
    st.integers(0, 2**32),
    st.integers(1, 400),
    st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    st.sampled_from([torch.float64, torch.float32, *LOW_PRECISION]),
    st.sampled_from(THRESHOLDS),
)
def test_the_cut_is_at_most_a_bin_below_the_exact_one(
    number: int, size: int, spread: float, dtype: torch.dtype, threshold: Threshold
) -> None:
    p = contributions(number, size, spread, dtype)
    t = cut(p, threshold)
    assert t.shape == (3, 1)
    assert t.dtype == dtype
    for i in range(3):
        if (p[i] > 0).any():
            low, high = exact(p[i], threshold, 1e-5), exact(p[i], threshold, -1e-5)
            rounding = max(1e-5, 2 * torch.finfo(dtype).eps)
            assert t[i] < high or high == 0
            assert t[i] >= low * BIN * (1 - rounding)


@given(st.integers(0, 2**32), st.integers(1, 400), st.sampled_from(THRESHOLDS))
def test_what_is_kept_holds_the_share_and_little_more(
    number: int, size: int, threshold: Threshold
) -> None:
    """More than the fewest entries are kept only where they lie within one bin."""
    (p, *_) = contributions(number, size, 2.0, torch.float32).double()
    kept = p > cut(p[None], threshold)[0]
    fewest = p >= exact(p, threshold, -1e-5)
    excess = kept & ~fewest
    assert (kept | ~fewest | (p <= 0)).all()
    assert (p[excess] >= exact(p, threshold, 1e-5) * BIN * (1 - 1e-5)).all()
    if threshold.kind == "mass":
        assert p[kept].sum() >= threshold.value * (1 - 1e-5) * p.clamp(min=0).sum()


@pytest.mark.parametrize("octave", [0, 1, 7, 15, 20, 23])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_entry_on_the_edge_of_a_bin_is_kept(octave: int, dtype: torch.dtype) -> None:
    """Here rounding decides the bin; the entry that completes the share is kept all the same."""
    edges = torch.exp2(-octave - torch.arange(128, dtype=torch.float64) / 128).to(dtype)
    for p in (edges, torch.nextafter(edges, edges * 0)):
        batch = torch.stack([torch.ones_like(p), p], 1)
        for threshold in (Threshold("mass", 1.0), Threshold("quantile", 0.25)):
            assert (batch > cut(batch, threshold)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *LOW_PRECISION])
@pytest.mark.parametrize("threshold", THRESHOLDS, ids=str)
def test_equal_entries_are_all_kept(dtype: torch.dtype, threshold: Threshold) -> None:
    for value in (1.0, 0.7, 3e-3, 1e4):
        p = torch.full((1, 50), value, dtype=dtype)
        assert (p > cut(p, threshold)).all()


@pytest.mark.parametrize("threshold", [*THRESHOLDS, Threshold("relative", 0.1)], ids=str)
def test_nothing_positive_keeps_nothing(threshold: Threshold) -> None:
    for p in (torch.zeros(2, 9), -torch.rand(2, 9)):
        assert not (p > cut(p, threshold)).any()


@pytest.mark.parametrize("threshold", THRESHOLDS, ids=str)
def test_no_cut_depends_on_its_batch(threshold: Threshold) -> None:
    p = contributions(0, 300, 3.0, torch.float32)
    alone = torch.cat([cut(sample[None], threshold) for sample in p])
    assert torch.equal(cut(p, threshold), alone)


def test_absolute_and_relative_cuts() -> None:
    p = tensor([1, -8, 4], [2, 1, 0])
    assert cut(p, Threshold("absolute", 10.0)).tolist() == [[10.0]]
    assert cut(p, Threshold("relative", 0.25)).tolist() == [[2.0], [0.5]]


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
