"""Metrics that need more than the maps and a mask: other maps, altered networks, a clock."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchfbi import metrics
from torchfbi.bench.measure import measure, ratio
from torchfbi.evaluate.context import Context, Units
from torchfbi.method.evidence import support
from torchfbi.metrics import Alone
from torchfbi.metrics.removal import Kind

STEPS, FEW_STEPS = 20, 10
"""Points on the curves of the headline, and on all others."""

KEPT = 0.1
"""The share of the patches that is kept alone."""

CELLS = 7
"""Cells a side that are removed one by one."""

TOLERANCE, TOLERANCE_AT = 15, 224
"""Pixels by which the pointing game may miss, on an image of that side; on smaller ones it is as
much less, on larger ones no more."""

STAGES = 5
"""Of the cascade of randomised layers, from the head alone to the whole network."""

ROUNDS = 5
"""How often the cost is timed."""


def pointing(c: Context) -> Tensor:
    """See ``metrics.pointing_game``."""
    share = min(1.0, min(c.maps.shape[1:]) / TOLERANCE_AT)
    return metrics.pointing_game(c.maps, c.mask, TOLERANCE * share)


def gain(c: Context, units: Units, kinds: Sequence[Kind], steps: int) -> Tensor:
    """Symmetric relevance gain, the mean over kinds of removal."""
    return torch.stack([c.curves(units, kind, steps).gain() for kind in kinds]).mean(0)


def kept_share(c: Context) -> Tensor:
    """The insertion curve at the share ``KEPT`` of the patches, by blur."""
    return c.curves("patches", "blur", STEPS).insertion[:, round(KEPT * STEPS)]


def single_deletion(c: Context) -> Tensor:
    """See ``metrics.single_deletion``, with ``CELLS`` cells a side, by blur."""
    height, width = c.batch.x.shape[2:]
    cells = metrics.cells(height, width, min(CELLS, height, width))
    return metrics.single_deletion(
        c.subject.logits, c.batch.x, c.batch.target, c.scores, cells, c.removal("blur")
    )


def support_alone(c: Context) -> Alone:
    """See ``metrics.support_alone``, for the map's support, by blur."""
    return metrics.support_alone(
        c.subject.predict, c.batch.x, c.batch.target, support(c.maps), c.removal("blur")
    )


def class_correlation(c: Context) -> Tensor:
    """With the map of a random other class."""
    rivals = c.subject.rivals[list(c.batch.indices)]
    return metrics.class_correlation(c.scores, c.explain(target=rivals))


def head(c: Context) -> Tensor:
    """With the map of the network whose last layer is random."""
    return metrics.class_correlation(c.scores, c.explain(module=c.subject.random_head))


def cascade(c: Context) -> Tensor:
    """The mean correlation with ``STAGES`` maps of the cascade, evenly spaced in layers."""
    module = c.subject.module
    layers = sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())
    chosen = {round(i * (layers - 1) / (STAGES - 1)) for i in range(STAGES)}
    found = [
        metrics.class_correlation(c.scores, c.explain(module=randomised))
        for number, (_, randomised) in enumerate(metrics.cascade(module, c.subject.seed))
        if number in chosen
    ]
    return torch.stack(found, 1).nanmean(1)


def sensitivity(c: Context) -> Tensor:
    """See ``metrics.max_sensitivity``."""

    def maps(x: Tensor) -> Tensor:
        return c.explain(x=x).relu()

    return metrics.max_sensitivity(maps, c.batch.x, c.maps, seed=c.subject.seed)


def cost(c: Context) -> Tensor:
    """Of the batch's first image; NaN for the others, which are not timed."""
    x, target = c.batch.x[:1], c.batch.target[:1]

    def forward() -> None:
        with torch.no_grad():
            c.subject.module(x)

    seconds = measure({"forward": forward, "method": lambda: c.explain(target, x=x)}, ROUNDS)
    found = torch.full((len(c.batch.x),), torch.nan, dtype=torch.float64)
    found[0] = ratio(seconds["method"], seconds["forward"]).median
    return found
