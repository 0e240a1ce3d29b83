"""PyTorch's threads do not survive a fork: GNU's OpenMP then waits for them forever."""

from __future__ import annotations

import os

import torch

_process = os.getpid()


def on_one_thread() -> None:
    """In a process forked from the one that imported torchfbi, let PyTorch compute on one thread.

    Called before the first computation, and once a process: what you set later is kept. Where
    ``torch.get_num_threads`` is to stay as it is, start processes by spawning them.
    """
    global _process
    if os.getpid() != _process:
        _process = os.getpid()
        torch.set_num_threads(1)


def unharmed() -> None:
    """In a process forked from one that has computed nothing: no thread was lost, all are used."""
    global _process
    _process = os.getpid()
