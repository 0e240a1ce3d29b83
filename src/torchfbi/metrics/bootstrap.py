"""How sure a mean over few images is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.errors import InputError, SettingsError


class Interval(NamedTuple):
    """A mean and the confidence interval around it; all NaN where there was no value."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Tensor | Sequence[float],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Args:
        values: one a sample, (N,); NaN is left out.
        confidence: the share of the resampled means inside the interval, in (0, 1).
        resamples: how often N values are drawn with replacement.
        seed: of the draws.

    Raises:
        InputError: not one-dimensional.
        SettingsError: a confidence or a number of resamples out of range.
    """
    if not (0 < confidence < 1 and resamples >= 1):
        raise SettingsError(
            f"confidence={confidence} must lie between 0 and 1, resamples={resamples} be positive."
        )
    sample = torch.as_tensor(values, dtype=torch.float64, device="cpu")
    if sample.ndim != 1:
        raise InputError(f"the values have shape {tuple(sample.shape)}: give one a sample, (N,).")
    sample = sample[~sample.isnan()]
    if not len(sample):
        return Interval(torch.nan, torch.nan, torch.nan)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(sample), (resamples, len(sample)), generator=generator)
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
    low, high = sample[drawn].mean(1).quantile(tails).tolist()
    return Interval(sample.mean().item(), low, high)


def bootstrap_difference(
    a: Tensor | Sequence[float],
    b: Tensor | Sequence[float],
    seed: int = 0,
) -> Interval:
    """The mean of a - b over the same images, with its 95 % bootstrap interval.

    Images are drawn, and with each its pair of values: what is hard for both cancels. An image
    counts where both values are defined.

    Args:
        a, b: one value a sample, (N,), in the same order.
        seed: of the draws.

    Raises:
        InputError: not one-dimensional, or not of the same length.
    """
    first, second = (torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in (a, b))
    if first.shape != second.shape:
        raise InputError(
            f"{len(first)} and {len(second)} values are no pairs: give both for the same samples."
        )
    return bootstrap_interval(first - second, seed=seed)
