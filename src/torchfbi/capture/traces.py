"""What PyTorch would keep of every trace, for ever: let go where a capture ends."""

from __future__ import annotations

import contextlib
import linecache
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import graph_module

from torchfbi.capture import programs


@contextlib.contextmanager
def without_sources() -> Iterator[None]:
    """The text of the code that ``torch.fx`` generates meanwhile is not kept: it is there for
    tracebacks alone, and no public function lets it go (11 KiB a capture)."""
    kept: dict[str, str] = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})
    before = set(kept)
    try:
        yield
    finally:
        for name in set(kept) - before:
            kept.pop(name, None)
            linecache.cache.pop(name, None)


def forget(program: ExportedProgram) -> None:
    """Let go of what was concluded about the open size of its batch (8 KiB a capture).

    It is a part of circles through C++ that no collector sees: tensors without values have the
    size, which has its ``ShapeEnv``, which has tensors without values. And it is a key in caches
    without an end: those of the methods of ``ShapeEnv``, functools' own and cleared as such.

    Args:
        program: one that nobody else has.
    """
    size: Any = programs.batch(program)
    if not isinstance(size, torch.SymInt):
        return
    environment = size.node.shape_env
    environment.fake_tensor_cache.clear()
    environment.tracked_fakes = None
    for method in vars(type(environment)).values():
        if hasattr(method, "cache_clear"):
            method.cache_clear()
