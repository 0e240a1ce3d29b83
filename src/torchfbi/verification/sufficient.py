"""The smallest part of an image found that, kept alone, keeps the class."""

from __future__ import annotations

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

PASSES, TRIES = 16, 3
"""Trimming: images that the network is shown at most, and how many ways a round to leave patches
out are tested; one of them at most under the other removal too."""

LEAST, LARGEST = 0.25, 0.65
"""Trimming: the ways leave out shares from the one to the other of the part."""

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

    Where none that it comes across keeps most of the probability, long ones are asked about too.

    Args:
        occlusion: the image, the class, the network.
        order: the place of each patch, (*grid.shape) int64.
    """

    def first(lengths: tuple[float, ...]) -> Tensor:
        return torch.stack([order < max(1, round(share * order.numel())) for share in lengths])

    prediction = occlusion.keep(first(FIRST))
    short, long = prediction.kept.tolist()
    more = SHORTER if short else BETWEEN if long else LONGER
    prediction = joined(prediction, occlusion.keep(first(more)))
    lengths: tuple[float, ...] = FIRST + more
    if more is not LONGER and not likely(occlusion, prediction).any():
        prediction = joined(prediction, occlusion.keep(first(LONGER)))
        lengths += LONGER
    every = torch.cat([first(lengths), torch.ones_like(order[None], dtype=torch.bool)])
    prediction = joined(prediction, occlusion.whole)
    ascending = every.flatten(1).sum(1).argsort()
    return Beginnings(every[ascending], prediction.at(ascending))


def likely(occlusion: Occlusion, prediction: Prediction) -> Tensor:
    """Whether the class is kept, and most of its probability, under every removal, (M,) bool."""
    return prediction.kept & (prediction.probability >= MOST * occlusion.probability).all(0)


def trimmed(occlusion: Occlusion, found: Found, order: Tensor, generator: torch.Generator) -> Found:
    """The part without patches that it does not need, as far as ``PASSES`` tests tell.

    Tests of groups: each round tries several cuts in directions drawn at random, which leave out
    more or less of the part on one side, rather where the map has less evidence. What is left
    hangs together; holes take more of what the rest needs. The cut that leaves out most and keeps
    the class is taken; where none does, the next round leaves out less. All are tested under the
    removal under which the part is nearest to losing the class, and what passes under the others.

    Args:
        occlusion: the image, the class, the network.
        found: a part that keeps the class.
        order: the place of each patch.
        generator: of the directions.
    """
    scale, last = 1.0, occlusion.passes + PASSES - TRIES - 1
    while occlusion.passes <= last:
        size = int(found.patches.sum())
        shares = torch.linspace(LARGEST, LEAST, TRIES) * scale
        counts = [max(1, round(share * size)) for share in shares.tolist()]
        if size <= counts[0]:
            break
        sides = _sides(found.patches, order, generator)
        tried = torch.stack(
            [_without(found.patches, *way) for way in zip(sides, counts, strict=True)]
        )
        better = _smallest(occlusion, tried, found)
        scale = 0.6 * scale if better is None else min(1.0, 1.2 * scale)
        found = better or found
    return found


def _smallest(occlusion: Occlusion, tried: Tensor, before: Found) -> Found | None:
    """The smallest that keeps the class under the harder removal, if also under the others."""
    weak = int(before.prediction.margin[:, 0].argmin())
    names = occlusion.removals
    others = names[:weak] + names[weak + 1 :]
    asked = occlusion.keep(tried, (names[weak],))
    if not asked.kept.any():
        return None
    index = int(asked.kept.int().argmax())
    patches, prediction = tried[index], asked.one(index)
    if others:
        rest = occlusion.keep(patches[None], others)
        parts = [torch.cat([r[:weak], f, r[weak:]]) for f, r in zip(prediction, rest, strict=True)]
        prediction = Prediction(*parts)
    return Found(patches, prediction) if prediction.kept.item() else None


def _sides(patches: Tensor, order: Tensor, generator: torch.Generator) -> Tensor:
    """For each cut, how far on its side each patch of the part is, (TRIES, patches) float64."""
    directions = torch.randn(TRIES, patches.ndim, generator=generator, dtype=torch.float64)
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
