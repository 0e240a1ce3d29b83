"""What a network itself answers, without its graph, and without a trace in it."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from torchfbi.capture import programs
from torchfbi.capture.share import copy_parts, traceable
from torchfbi.errors import InputError, NonFiniteError, RandomnessError, first_line


def answer(module: nn.Module | ExportedProgram, x: Tensor, output: int | str | None) -> Tensor:
    """One output of a network.

    Args:
        module: the network; it is not changed.
        x: an input (N, C, ...), which is not changed.
        output: its key or position; None where the network returns one tensor.

    Raises:
        InputError: the network itself fails for this input.
        NonFiniteError: it answers NaN or infinity.
        RandomnessError: it throws dice, of which the graph may hold another cast.
    """
    for _ in range(TRIES):
        before = _dice()
        try:
            found = outputs(module, x)
        except Exception as error:
            raise InputError(
                f"the model itself fails for this input of shape {tuple(x.shape)}: "
                f"{first_line(error)}"
            ) from error
        if _dice() == before:
            break
    else:
        raise RandomnessError(
            "the network's code draws from Python's or NumPy's random numbers in evaluation mode "
            "too, so that there is no one answer to explain: leave that out."
        )
    chosen = next(iter(found.values())) if output is None else found[str(output)]
    if not torch.isfinite(chosen).all():
        raise NonFiniteError(
            f"the network's own answer to this input is NaN or infinite in {x.dtype}: its weights "
            "may be damaged, or a wider dtype is needed."
        )
    return chosen


def _dice() -> tuple[Any, ...]:
    """The state of the random numbers of the process."""
    _, numbers, *rest = np.random.get_state()
    return random.getstate(), np.asarray(numbers).tobytes(), *rest


def outputs(module: nn.Module | ExportedProgram, x: Tensor) -> dict[str, Tensor]:
    """All floating-point tensors that a network returns, by key or position."""
    x = x.detach().clone()  # its code may write to it
    with neutral(x.device):
        if isinstance(module, ExportedProgram):
            found = programs.run(module, x)
        else:
            with WithoutAutograd():
                answered = plain(_untouched(module)(x))
            leaves, _ = pytree.tree_flatten_with_path(answered)
            found = {programs.key(path): leaf for path, leaf in leaves}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }


def plain(output: Any) -> Any:
    """Dataclasses and namespaces as dictionaries, whose parts ``torch.export`` and pytrees find."""
    if isinstance(output, SimpleNamespace):
        return {name: plain(value) for name, value in vars(output).items()}
    known = type(output) in pytree.SUPPORTED_NODES
    if dataclasses.is_dataclass(output) and not isinstance(output, type) and not known:
        names = [field.name for field in dataclasses.fields(output)]
        return {name: plain(getattr(output, name)) for name in names}
    if type(output) is dict:
        return {key: plain(value) for key, value in output.items()}
    return type(output)(map(plain, output)) if type(output) in (tuple, list) else output


TRIES = 3
"""Another thread may throw the dice meanwhile, but not every time."""


class WithoutAutograd(TorchFunctionMode):
    """Tensors as nobody differentiates them: ``.data`` is ``.detach()``, hooks for gradients are
    left out, and no part asks for gradients (``torch.enable_grad``) or does without."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == _DATA:
            return args[0].detach()
        if func is Tensor.register_hook:
            return RemovableHandle(OrderedDict())
        if func in (Tensor.retain_grad, _REQUIRES_GRAD, torch._C._set_grad_enabled):
            return None
        if func is Tensor.requires_grad_:
            return args[0]
        return self.answer(func, args, kwargs or {})

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The function's own answer."""
        return func(*args, **kwargs)


_DATA: Any = Tensor.data.__get__  # type: ignore[attr-defined]
_REQUIRES_GRAD: Any = Tensor.requires_grad.__set__  # type: ignore[attr-defined]


def agree(a: Tensor, b: Tensor) -> bool:
    """Whether two answers are equal but for what can only be rounding: in no entry they differ by
    more than a quarter of the square root of the dtype's precision, 9e-5 in single precision, of
    the largest entry."""
    if a.shape != b.shape:
        return False
    if not a.numel():
        return True
    tolerance = torch.finfo(b.dtype).eps ** 0.5 / 4
    a, b = a.double(), b.double()
    return bool((a - b).abs().max() <= tolerance * a.abs().max())


@contextlib.contextmanager
def neutral(device: torch.device) -> Iterator[None]:
    """Whatever the caller's modes are, a network is run, and traced, in the same."""
    with torch.inference_mode(False), torch.no_grad(), undirected(device):
        yield


@contextlib.contextmanager
def undirected(device: torch.device) -> Iterator[None]:
    """Nothing is cast by the caller's ``autocast``, or put on the default device of the caller's:
    what names no device is meant to be on the CPU."""
    elsewhere = torch.get_default_device().type != "cpu"
    with (
        torch.autocast(device.type, enabled=False),
        torch.device("cpu") if elsewhere else contextlib.nullcontext(),
    ):
        yield


def _untouched(module: nn.Module) -> nn.Module:
    """A copy of its structure: what its code keeps about itself, it keeps on the copy."""
    try:
        return traceable(copy_parts(module, {}))
    except Exception:  # a class that cannot be made without its arguments
        return module
