"""PyTorch's threads, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Let PyTorch use so many threads, and afterwards as many as before.

    Args:
        count: how many; None for as many as now.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield count or before
    finally:
        torch.set_num_threads(before)
