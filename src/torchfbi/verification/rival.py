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
    places = torch.stack([grid.order(m, generator).flatten() for m in (evidence, other)]).double()
    correlation = torch.corrcoef(places)[0, 1].item()
    against = (-grid.means(evidence.double())).clamp_min(0).flatten()
    named = places[1] < TENTH * grid.count
    total = against.sum().item()
    return Rival(label, correlation, against[named].sum().item() / total if total > 0 else None)
