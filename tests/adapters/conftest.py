"""What the adapters are tried on."""

import pytest
import torch
from torch import Tensor, nn

from adapters.networks import small


@pytest.fixture
def network() -> nn.Module:
    return small()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 16, 16)
