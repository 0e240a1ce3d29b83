"""Whether the part stays sufficient when other parts join it, and whether the map stays itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.verification.binomial import clopper_pearson
from torchfbi.verification.occlusion import Occlusion

ADDED = 0.25
"""The share of the other patches that join."""


class Stability(NamedTuple):
    """How often random additions leave the class as it is.

    Args:
        kept, trials: in how many of how many trials the class was kept.
        low, high: the exact 95 % confidence interval of the share (Clopper and Pearson 1934).
        noise, shift: the share of the tenth of the patches that the map names first which it names
            first again when the image gets a little noise, and when it is moved by some pixels
            (``moves``); None where the method that made the map could not be asked.
    """

    kept: int
    trials: int
    low: float
    high: float
    noise: float | None = None
    shift: float | None = None

    @property
    def share(self) -> float:
        """Of the trials in which the class was kept."""
        return self.kept / self.trials


def stability(
    occlusion: Occlusion, patches: Tensor, trials: int, generator: torch.Generator
) -> Stability:
    """Add other patches to a part at random and ask again (Jin et al. 2025).

    Each trial adds a quarter of the other patches, drawn without replacement. The trials take the
    removals in turn.

    Args:
        occlusion: the image, the class, the network.
        patches: the part, (*grid.shape) bool.
        trials: how many, >= the number of removals.
        generator: of the draws.
    """
    outside = (~patches).flatten().nonzero()[:, 0]
    count = round(ADDED * len(outside))
    drawn = []
    for _ in range(trials):
        more = patches.flatten().clone()
        more[outside[torch.randperm(len(outside), generator=generator)[:count]]] = True
        drawn.append(more.view_as(patches))
    kept = 0
    for turn, name in enumerate(occlusion.removals):
        part = torch.stack(drawn[turn :: len(occlusion.removals)])
        kept += int(occlusion.keep(part, (name,)).kept.sum())
    return Stability(kept, trials, *clopper_pearson(kept, trials))
