"""Whether this thread is traced; PyTorch raises its own flag for all threads of the process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_thread: int | None = None


def tracing() -> bool:
    """Whether what runs is compiled or exported, so that nothing may depend on values.

    While this package captures a network in one thread, others walk as ever: they check their
    images and targets, and give the same bytes.
    """
    return torch.compiler.is_compiling() and (_thread is None or _thread == threading.get_ident())


@contextlib.contextmanager
def traced_here() -> Iterator[None]:
    """Only this thread traces meanwhile. One at a time: inside of ``quiet``."""
    global _thread
    before, _thread = _thread, threading.get_ident()
    try:
        yield
    finally:
        _thread = before
