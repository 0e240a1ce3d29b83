"""One server for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pageserver import Server, serving
from torchfbi.web.limits import Limits


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    limits = Limits(upload=2**20, pixels=10_000_000, tick=0.2, seconds=600, network=2**20)
    with serving(limits, "efficientnet-lite0", "digits") as started:
        yield started
