"""Telling whether a module is still the one that was captured, or the one of another day."""

from __future__ import annotations

import hashlib
import weakref
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram

from torchfbi.capture import pickling
from torchfbi.method.graph import Graph


def fingerprint(module: nn.Module | ExportedProgram) -> tuple[Any, ...]:
    """Differs where the module visibly does: its parts and what they hold, hooks and tensors.

    Equal ones may still compute something else, as code reads what it likes: ``captured`` finds
    that out by the module's answer, which says nothing of weights that an image does not reach:
    that of a channel that is zero in it. So all values of tensors count.
    """
    look = _Look()
    if isinstance(module, ExportedProgram):
        return look(module.state_dict), look(module.constants)
    return tuple(
        (
            name,
            type(part),
            *(
                (key, value if type(value) in _PLAIN else look(value))
                for key, value in vars(part).items()
                if key != "_modules"
            ),
        )
        for name, part in module.named_modules()
    )


_PLAIN = {bool, int, float, str, type(None)}


class _Look:
    """Values as what can be compared later, when they may have changed. None is kept alive by it,
    and each container is gone through once."""

    def __init__(self) -> None:
        self._met = set[int]()

    def __call__(self, value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if isinstance(value, dict) and not value:
            return ()
        if isinstance(value, Tensor):
            version = 0 if value.is_inference() else value._version
            return id(value), version, *_bits(value)
        code = isinstance(value, nn.Module | type | ModuleType) or callable(value)
        if code or id(value) in self._met:
            return id(value)
        self._met.add(id(value))
        if isinstance(value, dict):
            return tuple((str(key), self(held)) for key, held in value.items())
        if isinstance(value, list | tuple):
            return tuple(map(self, value))
        return id(value), self(getattr(value, "__dict__", None))


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of the names and values of all tensors, equal in every process, 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


_HASHES = weakref.WeakKeyDictionary[Graph, str]()


def known_hash(module: nn.Module, graph: Graph) -> str:
    """``weights_hash``, computed once for the graph that was captured of the module as it is."""
    if graph not in _HASHES:
        _HASHES[graph] = weights_hash(module)
    return _HASHES[graph]


def graph_hash(graph: Graph) -> str:
    """SHA-256 of a captured graph, its operators and its constants, 64 hex digits."""
    digest = hashlib.sha256(repr(pickling.pack(graph.calls)).encode())
    for name, tensor in sorted(graph.tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor_bytes(tensor))
    digest.update(repr((graph.batch, graph.head)).encode())
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor, in order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return np.asarray(flat.view(torch.uint8)).tobytes()


def _bits(t: Tensor) -> tuple[int, int]:
    """Where the values lie, and a sum of their bits that tells places apart. Nothing where there
    are none, as in what a hook keeps while the network is traced."""
    valueless = t.is_meta or isinstance(t, FakeTensor)
    if valueless or t.numel() == 0 or t.layout != torch.strided:
        return 0, 0
    t = t.detach()
    numbers = t.int_repr() if t.is_quantized else torch.view_as_real(t) if t.is_complex() else t
    sized = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = numbers.view(sized[numbers.element_size()]).reshape(-1)
    size = bits.element_size()
    if bits.numel() * size <= SMALL and bits.device.type == "cpu":
        return t.data_ptr(), hash(bits.numpy().tobytes())
    if bits.numel() * size % 8 == 0 and bits.storage_offset() * size % 8 == 0:
        bits = bits.view(torch.int64)  # which is summed eight times as fast: 10 ms for 92 MiB
    whole = bits.numel() // COLUMNS * COLUMNS
    columns = bits[:whole].view(-1, COLUMNS).sum(0)  # int64, as is a sum of any integers
    columns[: bits.numel() - whole] += bits[whole:]
    return t.data_ptr(), int((columns * torch.arange(1, COLUMNS + 1, device=t.device)).sum())


SMALL = 2**14
"""Bytes up to which a hash of them is quicker than a sum: most tensors of a network are biases."""

COLUMNS = 1021
"""A prime, which no layer has as its size: entries that change places change their column."""
