"""The exact interval against published values and an independent implementation."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from torchfbi.verification import clopper_pearson


def test_known_values() -> None:
    # Ten of ten: the low end is (alpha / 2)^(1 / n); five of ten from Clopper and Pearson's tables.
    assert clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1.0), abs=1e-12)
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1), abs=1e-12)
    assert clopper_pearson(5, 10) == pytest.approx((0.1871, 0.8129), abs=5e-5)


@pytest.mark.parametrize("trials", [1, 2, 7, 12, 40])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_it_is_scipys(trials: int, confidence: float) -> None:
    for successes in range(trials + 1):
        expected = binomtest(successes, trials).proportion_ci(confidence, "exact")
        found = clopper_pearson(successes, trials, confidence)
        assert found == pytest.approx((expected.low, expected.high), abs=1e-9)
