"""Intervals by hand, by their coverage, and as SciPy computes them."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from torchfbi.errors import InputError, SettingsError
from torchfbi.metrics import Interval, bootstrap_difference, bootstrap_interval


def test_what_cannot_vary_has_no_width() -> None:
    assert bootstrap_interval([0.25]) == Interval(0.25, 0.25, 0.25)
    assert bootstrap_interval(torch.full((9,), 2.0)) == Interval(2, 2, 2)


def test_undefined_values_are_left_out() -> None:
    whole = bootstrap_interval([1.0, 2.0, 4.0])
    assert bootstrap_interval([math.nan, 1.0, 2.0, math.nan, 4.0]) == whole
    assert whole.mean == 7 / 3
    for empty in ([], [math.nan, math.nan]):
        assert all(math.isnan(bound) for bound in bootstrap_interval(empty))


def test_the_same_seed_gives_the_same_interval_and_touches_no_other() -> None:
    values, state = torch.rand(20), torch.get_rng_state()
    first = bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) == first
    assert bootstrap_interval(values, seed=2) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_more_confidence_is_wider_and_contains_the_mean() -> None:
    values = torch.rand(30)
    narrow, wide = (bootstrap_interval(values, confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_two_values_by_hand() -> None:
    """Means of two draws from 0 and 1 are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4."""
    assert bootstrap_interval([0.0, 1.0], confidence=0.4) == Interval(0.5, 0.5, 0.5)
    assert bootstrap_interval([0.0, 1.0], confidence=0.8) == Interval(0.5, 0.0, 1.0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    samples = torch.randn(300, 40)
    intervals = [bootstrap_interval(sample, 0.9, resamples=400) for sample in samples]
    covered = sum(low <= 0 <= high for _, low, high in intervals) / len(intervals)
    assert 0.84 < covered < 0.94


def test_scipy_agrees() -> None:
    values = torch.rand(50, dtype=torch.float64) ** 3
    ours = bootstrap_interval(values, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values.numpy(),),
        lambda v, axis: v.mean(axis),
        n_resamples=20_000,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=2e-3)
    assert ours.high == pytest.approx(theirs.high, abs=2e-3)


def test_pairs_cancel_what_is_hard_for_both() -> None:
    hard = 10 * torch.randn(40, dtype=torch.float64)
    a, b = hard + 1, hard + torch.rand(40, dtype=torch.float64)
    difference = bootstrap_difference(a, b)
    assert 0 < difference.low < difference.mean < difference.high < 1
    assert bootstrap_interval(a).low < bootstrap_interval(b).high
    assert bootstrap_difference(a, b) == bootstrap_interval(a - b)


def test_pairs_of_which_one_is_undefined_are_left_out() -> None:
    found = bootstrap_difference([1.0, math.nan, 3.0, 9.0], [0.0, 5.0, 1.0, math.nan])
    assert found == bootstrap_interval([1.0, 2.0])


def test_what_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"confidence=1\.5"):
        bootstrap_interval([1.0], 1.5)
    with pytest.raises(SettingsError, match="resamples=0"):
        bootstrap_interval([1.0], resamples=0)
    with pytest.raises(InputError, match="one a sample"):
        bootstrap_interval(torch.rand(2, 2))
    with pytest.raises(InputError, match="no pairs"):
        bootstrap_difference([1.0], [1.0, 2.0])
