"""What a network itself answers, without its graph, and without a trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from torchfbi import programs
from torchfbi.errors import InputError, NonFiniteError, first_line
from torchfbi.shadow import copy_parts


def answer(module: nn.Module | ExportedProgram, x: Tensor, output: int | str | None) -> Tensor:
    """One output of a network.

    Args:
        module: the network; it is not changed.
        x: an input (N, C, ...), which is not changed.
        output: its key or position; None where the network returns one tensor.

    Raises:
        InputError: the network itself fails for this input.
        NonFiniteError: it answers NaN or infinity.
    """
    try:
        found = outputs(module, x)
    except Exception as error:
        raise InputError(
            f"the model itself fails for this input of shape {tuple(x.shape)}: {first_line(error)}"
        ) from error
    chosen = next(iter(found.values())) if output is None else found[str(output)]
    if not torch.isfinite(chosen).all():
        raise NonFiniteError(
            f"the network's own answer to this input is NaN or infinite in {x.dtype}: its weights "
            "may be damaged, or a wider dtype is needed."
        )
    return chosen


def outputs(module: nn.Module | ExportedProgram, x: Tensor) -> dict[str, Tensor]:
    """All floating-point tensors that a network returns, by key or position."""
    x = x.detach().clone()  # its code may write to it
    with neutral(x.device):
        if isinstance(module, ExportedProgram):
            found = programs.run(module, x)
        else:
            leaves, _ = pytree.tree_flatten_with_path(_untouched(module)(x))
            found = {programs.key(path): leaf for path, leaf in leaves}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }


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
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
    ):
        yield


def _untouched(module: nn.Module) -> nn.Module:
    """A copy of its structure: what its code keeps about itself, it keeps on the copy."""
    try:
        return copy_parts(module, {})
    except Exception:  # a class that cannot be made without its arguments
        return module
