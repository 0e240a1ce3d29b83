"""The threshold, against sorting: in plain Python, and as exported programs find it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchfbi import thresholds
from torchfbi.errors import NonFiniteError
from torchfbi.settings import Threshold
from torchfbi.thresholds import cut

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SHARES = [
    Threshold(kind, value)
    for kind in ("mass", "quantile")
    for value in (0.05, 0.5, 0.9, 0.98, 0.999)
]
MEAN = Threshold("mean", 0.25)
PART = 2**-22  # of an entry: how much lower an exported program's threshold may be


@pytest.fixture(params=["search", "search far", "histogram"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """The search as it is, one that never sorts more than three entries, and the histogram."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "search far":
            patch.setattr(thresholds, "_FEW", 3)
            patch.setattr(thresholds, "_SOME", 7)
            patch.setattr(thresholds, "_BLOCK", 4)
        if request.param == "histogram":
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
        yield request.param


def smallest(p: Tensor, threshold: Threshold, slack: float) -> float:
    """The smallest of the fewest entries that hold the share, up to a share of ``slack``."""
    ordered = p.double().sort(descending=True).values
    if threshold.kind == "mass":
        holds, wanted = ordered.cumsum(0), threshold.value * ordered.sum().item()
    else:
        holds, wanted = torch.arange(1, len(p) + 1).double(), (1 - threshold.value) * len(p)
    first = int((holds < wanted * (1 + slack)).sum())
    return ordered[min(first, len(p) - 1)].item()


def contributions(number: int, size: int, spread: float, dtype: torch.dtype) -> Tensor:
    """Numbers over many orders of magnitude, with ties and zeros."""
    torch.manual_seed(number)
    p = torch.exp2(spread * torch.randn(3, size, dtype=torch.float64)).clamp(max=3e4)
    p = p * (torch.rand(3, size) > 0.4)
    return torch.cat([p, p[:, : size // 3]], 1).to(dtype)


@given(
    st.integers(0, 2**32),
    st.integers(1, 400),
    st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    st.sampled_from(DTYPES),
    st.sampled_from(SHARES),
)
def test_the_fewest_entries_that_hold_the_share_are_kept(
    way: str, number: int, size: int, spread: float, dtype: torch.dtype, threshold: Threshold
) -> None:
    p = contributions(number, size, spread, dtype)
    t = cut(p, threshold)
    assert t.shape == (3, 1)
    lower = PART if way == "histogram" else 0.0
    for sample, kept in zip(p, p > t, strict=True):
        fewest = sample >= smallest(sample, threshold, -1e-8)
        most = sample >= smallest(sample, threshold, 1e-8) * (1 - lower)
        positive = sample > 0
        assert (kept | ~(fewest & positive)).all()
        assert (~kept | (most & positive)).all()


@pytest.mark.parametrize("threshold", SHARES, ids=str)
def test_the_cut_is_the_largest_entry_that_is_dropped(threshold: Threshold) -> None:
    """Also among many equal ones, where what is kept would else be shrunk to nothing."""
    p = contributions(0, 400, 3.0, torch.float32)
    p[1] = (torch.rand(p.shape[1]) * 4).floor() * 0.3
    p[2] = 0.7
    t = cut(p, threshold)
    assert torch.equal(t, torch.where(p > t, 0.0, p).amax(1, keepdim=True))


def test_an_entry_that_a_compiler_puts_into_no_bin_drops_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bins may be worked out twice, and an entry at an edge then fall beside its part."""
    p = contributions(0, 400, 1.0, torch.float32)
    largest = p.amax(1)
    expected = thresholds._by_histogram(p, largest, Threshold("mass", 0.9))
    first_enough = thresholds._first_enough

    def beside(bins: Tensor, weight: Tensor, count: int, wanted: Any) -> tuple[Tensor, Tensor]:
        found, missing = first_enough(bins, weight, count, wanted)
        return (found + 1 if count == thresholds.PARTS else found), missing

    monkeypatch.setattr(thresholds, "_first_enough", beside)
    t = thresholds._by_histogram(p, largest, Threshold("mass", 0.9))
    assert (t <= largest / 2).all()
    assert ((p > t[:, None]).sum(1) - (p > expected[:, None]).sum(1)).abs().max() <= 2


def test_millions_of_entries_lie_in_memory_as_they_like(way: str) -> None:
    torch.manual_seed(0)
    p = (torch.randn(1, 24, 60, 60) ** 3).abs().contiguous(memory_format=torch.channels_last)
    for threshold in SHARES:
        t = cut(p, threshold)
        entries = p.flatten()
        assert t.shape == (1, 1, 1, 1)
        exact = smallest(entries, threshold, -1e-8)
        dropped = entries[entries < exact * (1 - PART if way == "histogram" else 1)]
        assert dropped.max() <= t.item() < exact


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", SHARES, ids=str)
def test_equal_entries_are_all_kept(dtype: torch.dtype, threshold: Threshold) -> None:
    for value in (1.0, 0.7, 3e-3, 1e4):
        p = torch.full((1, 50), value, dtype=dtype)
        assert (p > cut(p, threshold)).all()


@pytest.mark.parametrize("octave", [0, 1, 7, 15, 20, 23])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_entry_on_the_edge_of_a_bin_is_kept(octave: int, dtype: torch.dtype) -> None:
    """Here rounding decides the bin; the entry that completes the share is kept all the same."""
    bins = thresholds.BINS_PER_OCTAVE
    edges = torch.exp2(-octave - torch.arange(bins, dtype=torch.float64) / bins).to(dtype)
    for p in (edges, torch.nextafter(edges, edges * 0)):
        batch = torch.stack([torch.ones_like(p), p], 1)
        for threshold in (Threshold("mass", 1.0), Threshold("quantile", 0.25)):
            assert (batch > cut(batch, threshold)).all()


@pytest.mark.parametrize("threshold", [*SHARES, MEAN, Threshold("relative", 0.1)], ids=str)
def test_nothing_positive_keeps_nothing(threshold: Threshold) -> None:
    p = torch.zeros(2, 9)
    assert not (p > cut(p, threshold)).any()


@pytest.mark.parametrize("threshold", [*SHARES, MEAN], ids=str)
def test_no_cut_depends_on_its_batch(threshold: Threshold) -> None:
    p = contributions(0, 300, 3.0, torch.float32)
    alone = torch.cat([cut(sample[None], threshold) for sample in p])
    assert torch.equal(cut(p, threshold), alone)


@pytest.mark.parametrize("threshold", SHARES, ids=str)
def test_a_rounding_does_not_move_the_cut(threshold: Threshold) -> None:
    """Another order of summation upstream may change the last bit of every entry."""
    torch.manual_seed(0)
    p = torch.randn(1, 20000).abs() ** 3
    rounded = torch.nextafter(p, torch.where(torch.rand_like(p) > 0.5, 1e9, 0.0))
    kept, also = p > cut(p, threshold), rounded > cut(rounded, threshold)
    assert (kept != also).sum() <= 1


def test_cuts_by_a_number_by_the_largest_and_by_the_mean() -> None:
    p = torch.tensor([[1.0, 8.0, 3.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0, 0.0]])
    assert cut(p, Threshold("absolute", 10.0)).tolist() == [[10.0]]
    assert cut(p, Threshold("relative", 0.25)).tolist() == [[2.0], [0.5]]
    assert cut(p, Threshold("mean", 0.25)).tolist() == [[1.0], [0.375]]


@given(st.integers(0, 2**32), st.integers(1, 400), st.sampled_from(DTYPES))
def test_the_mean_is_that_of_the_entries_above_zero(
    number: int, size: int, dtype: torch.dtype
) -> None:
    p = contributions(number, size, 3.0, dtype)
    alive = [[entry for entry in sample if entry > 0] for sample in p.tolist()]
    means = [math.fsum(entries) / max(1, len(entries)) for entries in alive]
    expected = torch.tensor(means)[:, None] / 4
    torch.testing.assert_close(cut(p, MEAN), expected.to(cut(p, MEAN).dtype), rtol=1e-6, atol=0)


@pytest.mark.parametrize("number", [4, 5000])
def test_entries_whose_sum_is_beyond_the_range(number: int) -> None:
    p = torch.full((1, number), 2e38)
    assert cut(p, MEAN).item() == pytest.approx(5e37)
    p[:, : number // 4] = 1e20
    t = cut(p, Threshold("mass", 0.9)).item()
    assert t == pytest.approx(1e20)


@pytest.mark.parametrize("number", [torch.inf, torch.nan])
def test_numbers_beyond_the_range_are_told(number: Any, way: str) -> None:
    if way != "histogram":
        for threshold in (Threshold("mass", 0.9), MEAN, Threshold("relative", 0.1)):
            with pytest.raises(NonFiniteError, match="wider dtype"):
                cut(torch.tensor([[1.0, number]]), threshold)
