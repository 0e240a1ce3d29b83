"""Processes that a process starts for itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import wait
from typing import Any


def context(*modules: str) -> Any:
    """How to start processes that need modules whose import takes seconds: they are imported once.

    They are forks of a process that has done nothing but that. It was begun anew, so that nothing
    of this one is in it: no lock, no photo, and none of PyTorch's threads, which survive no fork.
    Elsewhere than on Linux, where forks are not safe or do not exist, each is begun anew.

    Args:
        modules: their names. Those of the first call are imported ahead.

    Returns:
        A context as of ``multiprocessing.get_context``.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(list(modules))
    return processes


def belong() -> None:
    """To be called in such a process: it ends with its parent, even where that is killed, and not
    by Ctrl-C, which reaches the parent as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
