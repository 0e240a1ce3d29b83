"""What a metric is, besides a function: a name, a direction, and what it needs to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from torchfbi.evaluate.benchmark import Batch
from torchfbi.evaluate.context import Context

Better = Literal["higher", "lower", "zero", "neither"]
"""Which values are good; ``neither``: it says what maps are like, and nobody is ranked by it."""

Needs = Literal["nothing", "mask", "mask off grids", "cell", "mask and cell", "rival"]


@dataclass(frozen=True)
class Metric:
    """A metric under its name.

    Args:
        name: lower case, with hyphens.
        title: the heading of its column.
        better: which values are good.
        meaning: one sentence.
        source: where it is defined.
        measure: from one method on one batch to (N,) float64, NaN where it is not defined.
        needs: what must be known of a scene; it is measured on those scenes only.
    """

    name: str
    title: str
    better: Better
    meaning: str
    source: str
    measure: Callable[[Context], Tensor]
    needs: Needs = "nothing"

    def applies(self, batch: Batch) -> bool:
        """Whether it can be measured on such scenes."""
        mask, cell = batch.mask is not None, batch.cell is not None
        return {
            "nothing": True,
            "mask": mask,
            "mask off grids": mask and not cell,
            "cell": cell,
            "mask and cell": mask and cell,
            "rival": batch.rival is not None,
        }[self.needs]

    def score(self, value: float) -> float:
        """The value turned so that more is better; 0 where nobody is ranked."""
        return {"higher": value, "lower": -value, "zero": -abs(value), "neither": 0.0}[self.better]
