"""Processes that a process starts for itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


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
