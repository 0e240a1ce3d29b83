"""Does the network need the pixels that the map names? They are shown, or taken away, to see."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from torchfbi.blur import blur
from torchfbi.errors import SettingsError
from torchfbi.metrics.localisation import grid_cell
from torchfbi.metrics.prediction import Predict, checked_sample, target_scores
from torchfbi.metrics.ranks import order, spearman

Baseline: TypeAlias = Literal["blur", "mean"]
"""What a pixel without information looks like: the image after a Gaussian blur of a sixteenth of
its shorter side (14 pixels of 224), which leaves the colours and no class; or the image's mean
colour."""


def insertion(
    predict: Predict,
    x: Tensor,
    target: Tensor,
    maps: Tensor,
    *,
    baseline: Baseline = "blur",
    area: float | Tensor | None = None,
    steps: int = 32,
    seed: int = 0,
    chunk: int = 32,
) -> Tensor:
    """The mean of the target's probability while pixels appear in the map's order.

    Petsiuk et al. 2018 (RISE): the area under the curve of the probability over the
    share of the pixels shown, by the trapezoidal rule. High: what the map names first suffices.

    *The whole image* (``area`` None) ranks every pixel. A sparse map says nothing about most of
    them, and what is measured there is a random order.

    *Area-matched* (``area`` in (0, 1]) compares maps of any density: the curve ends at that share
    of the pixels, and no pixel off the map's support appears. Every map may show as much; one
    that is done earlier rests at what it has shown, neither helped nor harmed by pixels it never
    named. An empty map has the baseline's probability.

    Costs ``steps + 1`` forward passes a sample. Insertion minus deletion, higher is better, is the
    difference of two calls with the same arguments.

    Args:
        predict: from images (M, C, H, W) to probabilities (M, classes).
        x: (N, C, H, W) float, as the network takes it.
        target: (N,) int64.
        maps: (N, H, W), >= 0.
        baseline: what pixels look like before they appear.
        area: None, or the share of the image at which the curve ends; for each sample its own as
            (N,), such as the ``support_fraction`` of another method's maps.
        steps: intervals of equal area on the curve.
        seed: of the random order among pixels of equal value.
        chunk: images in one forward pass.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        InputError: images, targets and maps that do not belong together.
        SettingsError: a setting that is out of range.
        TargetError: no such class.
    """
    places, counts = _schedule(x, target, maps, area, steps, seed)
    start = _baseline(x, baseline)
    return _area(predict, target, start, x, places, counts, chunk)


def deletion(
    predict: Predict,
    x: Tensor,
    target: Tensor,
    maps: Tensor,
    *,
    baseline: Baseline = "blur",
    area: float | Tensor | None = None,
    steps: int = 32,
    seed: int = 0,
    chunk: int = 32,
) -> Tensor:
    """The mean of the target's probability while pixels vanish in the map's order.

    Petsiuk et al. 2018 (RISE). Low: what the map names first is needed. Arguments,
    area matching, cost and errors are those of ``insertion``; an empty map has the image's own
    probability when areas are matched.

    Returns:
        (N,) float64 in [0, 1].
    """
    places, counts = _schedule(x, target, maps, area, steps, seed)
    end = _baseline(x, baseline)
    return _area(predict, target, x, end, places, counts, chunk)


def patch_correlation(
    predict: Predict,
    x: Tensor,
    target: Tensor,
    maps: Tensor,
    *,
    baseline: Baseline = "blur",
    grid: int = 4,
    chunk: int = 32,
) -> Tensor:
    """Whether the patches with more of the map are those that the network misses more.

    The image is cut into grid x grid patches and each is deleted alone; Spearman's rank
    correlation between the map's sum in a patch and the drop of the target's probability without
    it. It is the test by single deletion (Nauta et al. 2023; the faithfulness of Alvarez-Melis &
    Jaakkola 2018) with patches for features. Being one of ranks, it is the same for the drop of
    the log-probability.

    Costs ``grid ** 2`` forward passes a sample.

    Args:
        predict, x, target, maps, chunk: as for ``insertion``.
        baseline: what a deleted patch looks like.
        grid: patches in a row and in a column.

    Returns:
        (N,) float64 in [-1, 1]; NaN where the map has the same sum in all patches, as an empty
        one has, or the network the same probability without any of them.

    Raises:
        InputError, SettingsError, TargetError: as for ``insertion``.
    """
    values = checked_sample(x, target, maps)
    height, width = values.shape[1:]
    if not 2 <= grid <= min(height, width):
        raise SettingsError(f"grid={grid}: the image is cut into 2 or more pixels a side.")
    cells = [grid_cell(height, width, grid, i // grid, i % grid) for i in range(grid**2)]
    patches, deleted = torch.stack(cells), _baseline(x, baseline)

    def alter(samples: Tensor, numbers: Tensor) -> Tensor:
        samples, patch = samples.to(x.device), patches[numbers, None].to(x.device)
        return torch.where(patch, deleted[samples], x[samples])

    without = target_scores(predict, target, grid**2, alter, chunk)
    energy = torch.stack([(values * patch).sum((1, 2)) for patch in patches], 1)
    return spearman(energy, -without)


def _schedule(
    x: Tensor, target: Tensor, maps: Tensor, area: float | Tensor | None, steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Each pixel's place in the order, (N, H, W), and how many go at each step, (N, steps + 1)."""
    values = checked_sample(x, target, maps)
    if steps < 1:
        raise SettingsError(f"steps={steps}: a curve needs at least one interval.")
    share = torch.as_tensor(1.0 if area is None else area, dtype=torch.float64, device="cpu")
    if share.shape not in ((), (len(values),)) or not ((share > 0) & (share <= 1)).all():
        raise SettingsError(
            f"area={area}: it is a share of the image in (0, 1], or one for each sample, or None."
        )
    ends = (share * values.shape[1] * values.shape[2]).expand(len(values))
    counts = (ends[:, None] * torch.linspace(0, 1, steps + 1, dtype=torch.float64)).round().long()
    if area is not None:
        counts = counts.minimum((values > 0).sum((1, 2))[:, None])
    return order(values, seed), counts


def _area(
    predict: Predict,
    target: Tensor,
    start: Tensor,
    end: Tensor,
    places: Tensor,
    counts: Tensor,
    chunk: int,
) -> Tensor:
    """The mean height of the curve while the pixels of ``start`` become those of ``end``."""

    def alter(samples: Tensor, steps: Tensor) -> Tensor:
        changed = places[samples] < counts[samples, steps, None, None]
        samples = samples.to(start.device)
        return torch.where(changed[:, None].to(start.device), end[samples], start[samples])

    curve = target_scores(predict, target, counts.shape[1], alter, chunk)
    return torch.trapezoid(curve, dim=1) / (counts.shape[1] - 1)


def _baseline(x: Tensor, kind: Baseline) -> Tensor:
    if kind == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x)
    if kind == "blur":
        return blur(x, min(x.shape[2:]) / 16)
    raise SettingsError(f"unknown baseline {kind!r}: it is 'blur' or 'mean'.")
