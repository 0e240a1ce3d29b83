"""What a peer is: a name, a source, and a function from images to values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from torchfbi.errors import NonFiniteError
from torchfbi.method.settings import Settings

Family = Literal["fbi", "peer", "control"]
Reduction = Literal["magnitude", "positive"]
Attribute = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Method:
    """An attribution method under its name.

    Args:
        name: lower case, with hyphens.
        family: ``fbi``: a preset of ours; ``peer``: a published method; ``control``: a map that
            knows nothing, or only where to look, and that every method has to beat.
        reduction: how values become a map. ``magnitude``: the sum of |v| over the channels, for
            signals; ``positive``: ReLU of the sum over the channels, for contributions, whose
            negative ones speak against the class.
        source: where it is defined.
        attribute: the method itself. From the network, images (N, C, H, W), classes (N,) int64
            and a seed for what is random to signed values (N, C, H, W) or (N, 1, H, W). Call
            ``torchfbi.evaluate.peers.attribute`` instead, which checks what it is given.
        then: as ``attribute``: the order of what the method leaves at zero, for a method that
            selects: the same without its selection. None where it does not.
        settings: of our own walk, where the method is one.
    """

    name: str
    family: Family
    reduction: Reduction
    source: str
    attribute: Attribute
    then: Attribute | None = None
    settings: Settings | None = None

    def to_maps(self, values: Tensor) -> Tensor:
        """Values (N, C, H, W) as maps (N, H, W), float32 >= 0; an all-zero map is valid.

        Raises:
            NonFiniteError: a value is NaN or infinite.
        """
        return self.to_scores(values).relu()

    def to_scores(self, values: Tensor) -> Tensor:
        """Values (N, C, H, W) as scores (N, H, W), float32, by which pixels are ordered.

        Contributions keep their sign, so that what speaks against the class comes last; signals
        are their magnitude.

        Raises:
            NonFiniteError: a value is NaN or infinite.
        """
        total = values.abs().sum(1) if self.reduction == "magnitude" else values.sum(1)
        total = total.float()
        if not torch.isfinite(total).all():
            raise NonFiniteError(
                f"{self.name} gave NaN or infinite values in {values.dtype}: try a wider dtype."
            )
        return total
