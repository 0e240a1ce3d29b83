"""What a network ends in, and how its logits become probabilities."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Head = Literal["softmax", "sigmoid"]
"""The function behind the logits, which the capture strips: classes that exclude each other, or
classes of which several can be present (multi-label)."""


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
