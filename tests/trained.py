"""The embedded networks, loaded, and so captured, once a process: for tests that change none."""

from __future__ import annotations

import functools

from torchfbi.models import Model, embedded

NETWORKS = dict(embedded.MODELS)


@functools.cache
def trained(name: str) -> Model:
    """An embedded network."""
    return NETWORKS[name]()
