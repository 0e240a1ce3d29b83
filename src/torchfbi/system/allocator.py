"""The memory that the C library holds, where that is glibc; elsewhere nothing happens."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8


def share_one_heap() -> None:
    """All threads of the process use one heap, not one for each of the first sixteen or more:
    what one thread has let go of, another can use."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give the system the memory that is free, also from between what is in use."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
