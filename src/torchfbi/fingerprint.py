"""Telling whether a module is still the one that was captured."""

from __future__ import annotations

from typing import Any

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
