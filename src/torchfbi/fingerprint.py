"""Telling whether a module is still the one that was captured, or the one of another day."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram


def fingerprint(module: nn.Module | ExportedProgram) -> tuple[Any, ...]:
    """Changes whenever the module does: its parts, their plain attributes, their tensors.

    Writes through ``tensor.data`` leave no trace but the values, so two of them are looked at.
    """
    if isinstance(module, ExportedProgram):
        return ()
    tensors = tuple(
        (name, id(t), 0 if t.is_inference() else t._version, *_corners(t))
        for name, t in (*module.named_parameters(), *module.named_buffers())
    )
    parts = tuple(
        (name, type(part), *((key, v) for key, v in vars(part).items() if _is_plain(v)))
        for name, part in module.named_modules()
    )
    return tensors + parts


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of the names and values of all tensors, equal in every process, 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor, in order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return np.asarray(flat.view(torch.uint8)).tobytes()


def _corners(t: Tensor) -> tuple[int, complex, complex]:
    if t.numel() == 0:
        return 0, 0.0, 0.0
    t = t.detach()
    first, last = t[(0,) * t.ndim], t[(-1,) * t.ndim]
    return t.data_ptr(), first.item(), last.item()


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str) or callable(value)
