"""Whether a map is about its class, or about whatever stands in the image."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.verification.grid import Grid
from torchfbi.verification.verdict import Rival

TENTH = 0.1
"""The share of the patches that counts as the place of the evidence."""


def compared(grid: Grid, evidence: Tensor, other: Tensor, label: str) -> Rival:
    """Compare a map with that of the strongest rival.

    Args:
        grid: the patches.
        evidence: the map of the class, (*sizes), signed.
        other: the map of the rival.
        label: the rival's name.
    """
    generator = torch.Generator().manual_seed(0)
    own, theirs = (grid.order(each, generator) for each in (evidence, other))
    against = (-grid.means(evidence.double())).clamp_min(0).flatten()
    named = (theirs < TENTH * grid.count).flatten()
    total = against.sum().item()
    return Rival(
        label, correlation(own, theirs), against[named].sum().item() / total if total > 0 else None
    )


def correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation of two orders, places (*shape) without ties."""
    return torch.corrcoef(torch.stack([one.flatten(), other.flatten()]).double())[0, 1].item()
