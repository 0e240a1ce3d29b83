"""What all tests share: seeded examples, one thread of arithmetic less to wonder about."""

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


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
