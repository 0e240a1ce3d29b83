"""What a network ends in, and how its logits become probabilities."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Head = Literal["softmax", "sigmoid"]
"""The function behind the logits, which the capture strips: classes that exclude each other, or
classes of which several can be present (multi-label)."""


class Tail(NamedTuple):
    """What a network does behind its logits, which the capture strips.

    Args:
        function: the last one; None where there is none.
        dim: the dimension over which a softmax goes.
        flat: the network returns one number for each sample, (N,), and the logits are (N, 1).
    """

    function: Literal["softmax", "log_softmax", "sigmoid"] | None = None
    dim: int = 1
    flat: bool = False

    @property
    def head(self) -> Head | None:
        """What makes probabilities of classes out of the logits."""
        if self.function == "sigmoid":
            return "sigmoid"
        return "softmax" if self.function is not None and self.dim == 1 else None

    def __call__(self, logits: Tensor) -> Tensor:
        """The network's own output."""
        output = logits.squeeze(1) if self.flat else logits
        if self.function is None:
            return output
        if self.function == "sigmoid":
            return torch.sigmoid(output)
        over = torch.softmax if self.function == "softmax" else torch.log_softmax
        return over(output, self.dim)


def probabilities(logits: Tensor, head: Head | None) -> Tensor:
    """The probabilities of the classes.

    Args:
        logits: (N, classes, ...).
        head: what the network ended in. None, where it ended at the logits, stands for a
            softmax over the classes; for a sigmoid where there is only one.

    Returns:
        A tensor like ``logits``, in [0, 1].
    """
    if head == "sigmoid" or (head is None and logits.shape[1] == 1):
        return torch.sigmoid(logits)
    return torch.softmax(logits, 1)
