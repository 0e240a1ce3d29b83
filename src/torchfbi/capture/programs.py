"""What torch.export's programs say about themselves, and how they are run as they are."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree


def sizes(program: ExportedProgram) -> torch.Size:
    """The shape of the input that it was traced with; open sizes are a ``torch.SymInt``."""
    shape: torch.Size = program.graph.find_nodes(op="placeholder")[-1].meta["val"].shape
    return shape


def batch(program: ExportedProgram) -> Any:
    """The batch size, a number or a ``torch.SymInt``."""
    return sizes(program)[0]


def batch_size(program: ExportedProgram) -> int | None:
    """The batch size that it is fixed to, if it is."""
    return concrete(batch(program))


def concrete(size: int | torch.SymInt) -> int | None:
    """A size in an exported program as a number; None where the program leaves it open."""
    # Here, since it imports SymPy, which takes half a second.
    from torch.fx.experimental.symbolic_shapes import is_concrete_int

    return int(size) if is_concrete_int(size) else None


def key(path: Any) -> str:
    """Where in a network's outputs one lies: ``"out"``, ``"0"``, ``"aux.1"``."""
    return ".".join(re.findall(r"[\w-]+", pytree.keystr(path)))


def output_names(program: ExportedProgram) -> dict[str, str]:
    """The names of the outputs by their key or position in what the module returned."""
    names = program.graph_signature.user_outputs
    structure = pytree.tree_unflatten(list(names), program.call_spec.out_spec)
    flat, _ = pytree.tree_flatten_with_path(structure)
    return {key(path): str(name) for (path, _), name in zip(flat, names, strict=True)}


def run(program: ExportedProgram, x: Tensor) -> dict[str, Any]:
    """All outputs by key or position; to make ``program.module()`` for it takes seconds."""
    signature = program.graph_signature
    state: dict[str, Any] = {**program.state_dict, **program.constants}
    state |= {name: state[name].clone() for name in signature.buffers}  # which it may write to
    given = [x if spec.target is None else state[spec.target] for spec in signature.input_specs]
    names = [spec.arg.name for spec in signature.output_specs]
    values = dict(zip(names, program.graph_module(*given), strict=True))
    return {key: values.get(name) for key, name in output_names(program).items()}


def owned(tensors: dict[str, Tensor], program: ExportedProgram) -> dict[str, Tensor]:
    """The tensors, those that lie in the memory of the program's, which is the network's, as
    copies: whoever trains it writes there, and what was folded or packed would no longer fit."""
    shared = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*program.state_dict.values(), *program.constants.values())
        if isinstance(tensor, Tensor) and tensor.layout == torch.strided
    }

    def is_own(tensor: Tensor) -> bool:
        return tensor.layout == torch.strided and (
            tensor.untyped_storage().data_ptr() not in shared
        )

    return {
        name: tensor.detach() if is_own(tensor) else tensor.detach().clone()
        for name, tensor in tensors.items()
    }
