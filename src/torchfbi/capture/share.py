"""A copy of a module around the very same tensors, so that the module itself is left alone."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def share_tensors(module: nn.Module) -> nn.Module:
    """A copy of the module's structure whose parameters lie in the same memory, without gradients:
    torch.export reads these, while another thread may drop them. Buffers are copied: its code may
    write to them.

    torch.export swaps a module's parameters while it traces; on a copy no other thread sees it.
    """
    tensors = [*module.parameters(), *module.buffers()]
    try:
        copied = copy.deepcopy(module, {id(tensor): _copied(tensor) for tensor in tensors})
        _same_mode(module, copied)
    except Exception:  # an attribute that cannot be copied, a lock say: share the attributes too
        copied = copy_parts(module, {})
    return traceable(copied)


def uncompiled(module: nn.Module) -> nn.Module:
    """The network inside of what ``torch.compile`` or ``nn.DataParallel`` returned."""
    while True:
        wraps = isinstance(module, nn.DataParallel | DistributedDataParallel)
        # The class of compiled modules is not imported: that takes seconds.
        inner = getattr(module, "module" if wraps else "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def traceable(module: nn.Module) -> nn.Module:
    """A copy whose parts are as they were before they were compiled, and such that
    ``torch.export`` can look into them. The copy itself is changed."""
    module = uncompiled(module)
    for part in list(module.modules()):
        vars(part).pop("_compiled_call_impl", None)  # of module.compile()
        for name, child in part._modules.items():
            if child is not None and (replaced := _replacement(child)) is not child:
                part._modules[name] = traceable(replaced)
    return module


def _replacement(part: nn.Module) -> nn.Module:
    if type(part) is nn.CrossMapLRN2d:  # the same sum over the maps, as an autograd function
        same = nn.LocalResponseNorm(part.size, part.alpha, part.beta, part.k)
        return same.train(part.training)
    return uncompiled(part)


def _same_mode(module: nn.Module, copied: nn.Module) -> None:
    """Copies of some graph modules are in training mode again, and run another graph there."""
    if copied.training != module.training:
        with contextlib.suppress(NotImplementedError):  # an exported program has one mode alone
            copied.train(module.training)
    for part, its_copy in zip(module.modules(), copied.modules(), strict=True):
        its_copy.training = part.training


def copy_parts(module: nn.Module, made: dict[int, Any]) -> nn.Module:
    """A copy of the modules, and of their tensors as ``share_tensors`` has them; other attributes
    are the originals' own.

    Args:
        made: the copies so far, by the identity of their originals: what two parts share, their
            copies share.
    """
    if id(module) in made:
        found: nn.Module = made[id(module)]
        return found
    # A class's own way to make one may want arguments, or make another class (fx.GraphModule).
    copied: nn.Module = object.__new__(type(module))
    made[id(module)] = copied
    vars(copied).update(vars(module))
    for kind in ("_parameters", "_buffers"):
        tensors = vars(module)[kind].items()
        vars(copied)[kind] = {
            name: None if t is None else made.setdefault(id(t), _copied(t)) for name, t in tensors
        }
    vars(copied)["_modules"] = {
        name: None if part is None else copy_parts(part, made)
        for name, part in module._modules.items()
    }
    return copied


def _copied(tensor: Tensor) -> Tensor:
    """A parameter's own memory as another parameter, or a copy of one made under inference mode,
    which cannot be traced; of a buffer always a copy."""
    if not isinstance(tensor, nn.Parameter):
        return tensor.detach().clone()
    if tensor.is_inference():
        return nn.Parameter(tensor.clone(), False)
    return nn.Parameter(tensor.detach(), tensor.requires_grad)
