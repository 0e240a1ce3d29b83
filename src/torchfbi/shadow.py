"""A copy of a module around the very same tensors, so that the module itself is left alone."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def share_tensors(module: nn.Module) -> nn.Module:
    """A copy of the module's structure that shares its parameters and buffers.

    torch.export swaps a module's parameters while it traces; on a copy no other thread sees it.
    """
    tensors = [*module.parameters(), *module.buffers()]
    try:
        return copy.deepcopy(module, {id(tensor): _usable(tensor) for tensor in tensors})
    except Exception:  # an attribute that cannot be copied, a lock say: share the attributes too
        return copy_parts(module, {})


def copy_parts(module: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """A copy of the modules alone, which share their attributes with the originals.

    Args:
        made: the copies so far, by the identity of their originals.
    """
    if id(module) in made:
        return made[id(module)]
    # A class's own way to make one may want arguments, or make another class (fx.GraphModule).
    copied: nn.Module = object.__new__(type(module))
    made[id(module)] = copied
    vars(copied).update(vars(module))
    for kind in ("_parameters", "_buffers"):
        tensors = vars(module)[kind].items()
        vars(copied)[kind] = {name: None if t is None else _usable(t) for name, t in tensors}
    vars(copied)["_modules"] = {
        name: None if part is None else copy_parts(part, made)
        for name, part in module._modules.items()
    }
    return copied


def _usable(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy of one made under inference mode, which cannot be traced."""
    if not tensor.is_inference():
        return tensor
    copied = tensor.clone()
    return nn.Parameter(copied, False) if isinstance(tensor, nn.Parameter) else copied
