"""Trying a network on shapes alone, so that a damaged file cannot ask for all memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

LIMIT = 2**30
"""The most entries that one tensor, or all computed constants, may have: 4 GiB."""


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Within, tensors have no memory, and more than ``LIMIT`` entries are a ValueError."""
    limit: Any = _Limit()  # type: ignore[no-untyped-call]
    with FakeTensorMode(allow_non_fake_inputs=True), limit, torch.no_grad():
        yield


class _Limit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses tensors of more than ``LIMIT`` entries."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.numel() > LIMIT:
                raise ValueError(f"a tensor of shape {tuple(tensor.shape)} takes too much memory")
        return result
