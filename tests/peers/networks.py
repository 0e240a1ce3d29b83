"""Networks that the peers are tried on."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


class Functional(nn.Module):
    """Functional activations of several kinds, one of them used twice, and a shortcut."""

    def __init__(self, double: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)
        self.kinds: list[Activation] = [F.relu, F.relu6, F.silu]
        self.eval().requires_grad_(False)
        if double:
            self.double()

    def forward(self, x: Tensor) -> Tensor:
        relu, relu6, silu = self.kinds
        x = F.max_pool2d(relu6(8 * self.first(x)), 2)
        x = silu(self.second(x)) + x
        x = relu(self.second(x))
        return self.head(x.mean((2, 3)))
