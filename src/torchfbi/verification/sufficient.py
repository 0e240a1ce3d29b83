"""The smallest part of an image found that, kept alone, keeps the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.verification.occlusion import Occlusion, Prediction, joined

FIRST = (0.08, 0.2)
SHORTER, BETWEEN, LONGER = (0.03, 0.05), (0.12, 0.16), (0.34, 0.55)
"""Beginnings of the map's order, as shares of the patches: the first ones, and which come next if
both keep the class, the second one alone, or neither."""

MOST = 0.9
"""The share of the whole image's probability that ``Verdict.most`` keeps."""

PASSES = 30
"""Images that the network is shown at most, from the first beginning to the last cut."""

CUTS = (0.55, 0.3)
"""Trimming: the shares of the part that the cuts of a round leave out."""

LOYALTY = 0.25
"""Trimming: how much the map's own order counts beside the direction of a cut."""


class Found(NamedTuple):
    """Patches, and what the network says when they are kept alone.

    Args:
        patches: (*grid.shape) bool.
        prediction: for this part, M = 1.
    """

    patches: Tensor
    prediction: Prediction


class Beginnings(NamedTuple):
    """The first patches of an order, kept alone: what the map claims, tested.

    Args:
        patches: (M, *grid.shape) bool, growing; the last one is the whole image.
        prediction: for each of them.
    """

    patches: Tensor
    prediction: Prediction

    def first(self, enough: Tensor) -> Found:
        """The shortest beginning that is enough, (M,) bool."""
        index = int(enough.int().argmax())
        return Found(self.patches[index], self.prediction.one(index))


def beginnings(occlusion: Occlusion, order: Tensor) -> Beginnings:
    """Ask about beginnings of an order: a bisection, since what is longer rarely keeps less.

    Where none that it comes across keeps most of the probability, longer ones are asked about too.

    Args:
        occlusion: the image, the class, the network.
        order: the place of each patch, (*grid.shape) int64.
    """

    lengths: list[float] = []
    parts: list[Prediction] = []

    def ask(*more: float) -> Prediction:
        lengths.extend(more)
        parts.append(occlusion.keeping(_first(order, more), occlusion.removals))
        return parts[-1]

    short, long = ask(*FIRST).kept.tolist()
    more = SHORTER if short else BETWEEN if long else LONGER
    ask(*more)
    if more is not LONGER and not likely(occlusion, joined(*parts)).any():
        for length in reversed(LONGER):
            if not likely(occlusion, ask(length)).any():
                break
    prediction = joined(*parts, occlusion.whole)
    every = _first(order, (*lengths, 1.0))
    ascending = every.flatten(1).sum(1).argsort()
    return Beginnings(every[ascending], prediction.at(ascending))


def _first(order: Tensor, shares: Sequence[float]) -> Tensor:
    """The beginnings of an order, (shares, *grid.shape) bool."""
    return torch.stack([order < max(1, round(share * order.numel())) for share in shares])


def likely(occlusion: Occlusion, prediction: Prediction) -> Tensor:
    """Whether the class is kept, and most of its probability, under every removal, (M,) bool."""
    return prediction.kept & (prediction.probability >= MOST * occlusion.probability).all(0)


def trimmed(
    occlusion: Occlusion, found: Found, order: Tensor, generator: torch.Generator, passes: int
) -> Found:
    """The part without patches that it does not need, as far as tests tell.

    Tests of groups: each round tries two cuts in directions drawn at random, which leave out more
    or less of the part on one side, rather where the map has less evidence. What is left hangs
    together; holes take more of what the rest needs. The cut that leaves out most and keeps the
    class is taken; where none does, the next round leaves out less. All are tested under the
    removal under which the part is nearest to losing the class, and what passes under the others.

    Args:
        occlusion: the image, the class, the network.
        found: a part that keeps the class.
        order: the place of each patch.
        generator: of the directions.
        passes: images that the network may be shown.
    """
    scale, end = 1.0, occlusion.passes + passes
    while (left := end - occlusion.passes - len(occlusion.removals) + 1) > 0:
        size = int(found.patches.sum())
        counts = [max(1, round(share * scale * size)) for share in CUTS[-left:]]
        if size <= counts[0]:
            break
        sides = _sides(found.patches, order, len(counts), generator)
        cut = torch.stack(
            [_without(found.patches, *way) for way in zip(sides, counts, strict=True)]
        )
        better = _smallest(occlusion, cut, found)
        scale = 0.6 * scale if better is None else min(1.0, 1.2 * scale)
        found = better or found
    return found


def _smallest(occlusion: Occlusion, cut: Tensor, before: Found) -> Found | None:
    """The smallest that keeps the class under the harder removal, if also under the others."""
    prediction = occlusion.keeping(cut, occlusion.hardest(before.prediction), most=1)
    if not prediction.kept.any():
        return None
    index = int(prediction.kept.int().argmax())
    return Found(cut[index], prediction.one(index))


def _sides(patches: Tensor, order: Tensor, cuts: int, generator: torch.Generator) -> Tensor:
    """For each cut, how far on its side each patch of the part is, (cuts, patches) float64."""
    directions = torch.randn(cuts, patches.ndim, generator=generator, dtype=torch.float64)
    along = directions @ patches.nonzero().double().T
    late = order[patches].argsort().argsort().double()
    return _standard(along) + LOYALTY * _standard(late)


def _without(patches: Tensor, side: Tensor, count: int) -> Tensor:
    """The part without the ``count`` patches that are furthest on one side."""
    kept = patches.flatten().clone()
    kept[kept.nonzero()[side.topk(count).indices, 0]] = False
    return kept.view_as(patches)


def _standard(values: Tensor) -> Tensor:
    """With mean 0 and standard deviation 1 along the last dimension."""
    spread = values.std(-1, keepdim=True).clamp_min(1e-12)
    return (values - values.mean(-1, keepdim=True)) / spread
