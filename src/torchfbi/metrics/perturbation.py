"""Is what the map names needed by the network, cell by cell and as a whole?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.errors import InputError, SettingsError
from torchfbi.metrics.prediction import Predict, checked_sample, target_scores
from torchfbi.metrics.ranks import spearman
from torchfbi.metrics.removal import Remove
from torchfbi.metrics.units import checked_units, unit_sums


def single_deletion(
    predict: Predict,
    x: Tensor,
    target: Tensor,
    maps: Tensor,
    units: Tensor,
    remove: Remove,
    *,
    chunk: int = 32,
) -> Tensor:
    """Whether the units with more of the map are those that the network misses more.

    Each unit is removed alone; Spearman's rank correlation between the map's sum over a unit and
    the drop of the target's output without it. No order of removal is involved, and each unit
    counts the same. It is the test by single deletion (Nauta et al. 2023; the faithfulness of
    Alvarez-Melis & Jaakkola 2018) with units for features. What speaks against the class has
    negative sums in a signed map, and negative drops: only signed maps can have all ranks right.

    Costs one forward pass a unit and sample.

    Args:
        predict: from images (M, C, H, W) to scores (M, classes): logits, since probabilities near
            1 do not move.
        x: (N, C, H, W) float, as the network takes it.
        target: (N,) int64.
        maps: (N, H, W), signed or not.
        units: int64 (N, H, W), or (H, W) for all images: ``cells(height, width, 7)``; all images
            have the same number of them.
        remove: from ``removal(x, ...)``.
        chunk: images in one forward pass.

    Returns:
        (N,) float64 in [-1, 1]; NaN where the map has the same sum over all units, as an empty one
        has, or the network the same output without any of them.

    Raises:
        InputError: images, targets, maps and units that do not belong together.
        TargetError: no such class.
    """
    values = checked_sample(x, target, maps, signed=True)
    parts = _equally_many(checked_units(units, values))
    energy = unit_sums(values, parts)

    def alter(samples: Tensor, numbers: Tensor) -> Tensor:
        return remove(samples, parts[samples] == numbers[:, None, None])

    without = target_scores(predict, target, energy.shape[1], alter, chunk)
    return spearman(energy, -without)


class Alone(NamedTuple):
    """A set of pixels by itself.

    Args:
        kept: the target's probability with nothing but these pixels, over that of the whole image,
            (N,) float64; 1: they suffice.
        removed: the same without these pixels; 0: they are needed.
    """

    kept: Tensor
    removed: Tensor


def support_alone(
    predict: Predict,
    x: Tensor,
    target: Tensor,
    support: Tensor,
    remove: Remove,
    *,
    chunk: int = 32,
) -> Alone:
    """What the network says of the support alone, and of the image without it.

    Sufficiency and comprehensiveness of DeYoung et al. 2020 (ERASER), as ratios. Both grow with
    the support's size: say its share of the pixels beside them. Costs three forward passes.

    Args:
        predict: from images (M, C, H, W) to probabilities (M, classes).
        x: (N, C, H, W) float.
        target: (N,) int64.
        support: bool (N, H, W).
        remove: from ``removal(x, ...)``.
        chunk: images in one forward pass.

    Raises:
        InputError: images, targets and supports that do not belong together.
        TargetError: no such class.
    """
    checked_sample(x, target, support.float())
    if support.dtype != torch.bool:
        raise InputError(f"the support is {support.dtype}: say which pixels are in, as torch.bool.")
    inside = support.cpu()

    def alter(samples: Tensor, numbers: Tensor) -> Tensor:
        holes = inside[samples] ^ (numbers == 0)[:, None, None]
        return remove(samples, holes & (numbers < 2)[:, None, None])

    kept, removed, whole = target_scores(predict, target, 3, alter, chunk).unbind(1)
    return Alone(kept / whole, removed / whole)


def greedy_oracle(
    predict: Predict,
    x: Tensor,
    target: Tensor,
    units: Tensor,
    remove: Remove,
    *,
    at_once: int = 7,
    chunk: int = 32,
) -> Tensor:
    """A map that knows the answer of the symmetric relevance gain, about as high as it can be.

    Round by round every unit that is left is tried, and those go next with which alone added the
    probability with all so far, less the probability without them, is largest. For U units and
    ``at_once`` of them a round it costs about U^2 / ``at_once`` forward passes a sample (392 for 49
    cells, 7 at once). It is greedy, so no upper bound in the strict sense; and on coarse units, so
    that a map that is right about finer ones may beat it.

    Args:
        predict: from images (M, C, H, W) to probabilities (M, classes).
        x: (N, C, H, W) float.
        target: (N,) int64.
        units: int64 (N, H, W), or (H, W) for all images, equally many in each.
        remove: from ``removal(x, ...)``, as the gain to be reached removes pixels.
        at_once: units that go a round; 1 is the truly greedy order, at a high price.
        chunk: images in one forward pass.

    Returns:
        (N, H, W) float64: U for the unit that goes first, 1 for the last.

    Raises:
        InputError, TargetError: as for ``single_deletion``.
        SettingsError: ``at_once`` is below 1.
    """
    if at_once < 1:
        raise SettingsError(f"at_once={at_once}: at least one unit goes in a round.")
    samples_of_maps = checked_sample(x, target, x.new_zeros(len(x), *x.shape[2:]))
    parts = _equally_many(checked_units(units, samples_of_maps))
    count = int(parts.max()) + 1 if parts.numel() else 0
    value = torch.zeros(len(x), count, dtype=torch.float64)
    for first in range(0, count, at_once):
        left = (value == 0).nonzero()[:, 1].view(len(x), count - first)
        trials = left.shape[1]

        def alter(samples: Tensor, numbers: Tensor, left: Tensor = left) -> Tensor:
            trials = left.shape[1]
            gone = value[samples] > 0
            tried = left[samples, numbers % trials]
            gone[torch.arange(len(samples)), tried] = True
            holes = gone.gather(1, parts[samples].flatten(1)).view(len(samples), *parts.shape[1:])
            return remove(samples, holes ^ (numbers < trials)[:, None, None])

        scores = target_scores(predict, target, 2 * trials, alter, chunk)
        gain = scores[:, :trials] - scores[:, trials:]
        best = gain.argsort(dim=1, descending=True, stable=True)[:, :at_once]
        ranks = count - first - torch.arange(best.shape[1], dtype=torch.float64)
        value.scatter_(1, left.gather(1, best), ranks.expand(len(x), -1))
    return value.gather(1, parts.flatten(1)).view(parts.shape)


def _equally_many(units: Tensor) -> Tensor:
    if len(set(units.flatten(1).amax(1).tolist() if len(units) else [])) > 1:
        raise InputError("the images are cut into different numbers of units: give equally many.")
    return units
