"""Metrics that need more than the maps and a mask: other maps, altered networks, a clock."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi import metrics
from torchfbi.bench.measure import measure, ratio
from torchfbi.evaluate.context import Context

AREA = 0.1
"""The share of the image at which area-matched curves end, the same for all methods."""

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


def difference(c: Context, area: float | None) -> Tensor:
    """Insertion minus deletion."""
    return c.curve("insertion", area) - c.curve("deletion", area)


def road(c: Context) -> Tensor:
    """ROAD with the least relevant pixels removed first, less the most relevant first."""
    least = metrics.road(*c.question, first="least", seed=c.subject.seed)
    return least - metrics.road(*c.question, first="most", seed=c.subject.seed)


def class_correlation(c: Context) -> Tensor:
    """With the map of a random other class."""
    rivals = c.subject.rivals[list(c.batch.indices)]
    return metrics.class_correlation(c.maps, c.explain(target=rivals))


def head(c: Context) -> Tensor:
    """With the map of the network whose last layer is random."""
    return metrics.class_correlation(c.maps, c.explain(module=c.subject.random_head))


def cascade(c: Context) -> Tensor:
    """The mean correlation with ``STAGES`` maps of the cascade, evenly spaced in layers."""
    module = c.subject.module
    layers = sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())
    chosen = {round(i * (layers - 1) / (STAGES - 1)) for i in range(STAGES)}
    found = [
        metrics.class_correlation(c.maps, c.explain(module=randomised))
        for number, (_, randomised) in enumerate(metrics.cascade(module, c.subject.seed))
        if number in chosen
    ]
    return torch.stack(found, 1).nanmean(1)


def sensitivity(c: Context) -> Tensor:
    """See ``metrics.max_sensitivity``."""
    return metrics.max_sensitivity(c.explain, c.batch.x, c.maps, seed=c.subject.seed)


def cost(c: Context) -> Tensor:
    """Of the batch's first image; NaN for the others, which are not timed."""
    x, target = c.batch.x[:1], c.batch.target[:1]

    def forward() -> None:
        with torch.no_grad():
            c.subject.module(x)

    seconds = measure({"forward": forward, "method": lambda: c.explain(x, target)}, ROUNDS)
    found = torch.full((len(c.batch.x),), torch.nan, dtype=torch.float64)
    found[0] = ratio(seconds["method"], seconds["forward"]).median
    return found
