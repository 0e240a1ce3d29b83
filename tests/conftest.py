"""What all tests share: the same examples and random numbers in every run, on one thread."""

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "proofs",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("proofs")

# On busy cores PyTorch's threads wait for each other at every group of a depthwise convolution:
# one network took minutes instead of a second.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
