"""What cannot be traced, told in words before PyTorch trips over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy

from torchfbi.errors import CaptureError, TrainingModeError


def check_module(module: Any) -> None:
    """Whether a model can be captured, as far as its parts tell.

    Raises:
        TrainingModeError: a part of it is in training mode.
        CaptureError: it is no module, or has parts without weights, of TorchScript or quantised.
    """
    if isinstance(module, ExportedProgram):
        return
    if not isinstance(module, nn.Module):
        raise CaptureError(_no_module(module))
    if isinstance(module, torch.jit.ScriptModule):
        raise CaptureError(
            "the model is a TorchScript module, which torch.export does not read: give the "
            "original nn.Module, or an exported program (torch.export.export)."
        )
    _check_library(module)
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise CaptureError(
                f"the model's part {name!r} is TorchScript, which torch.export does not read: put "
                "the original nn.Module in its place."
            )
        if ".quantized" in type(part).__module__:
            raise CaptureError(
                f"the model's part {name!r} is quantised ({type(part).__name__}), and integers "
                "have no adjoint: explain the network as it was before it was converted."
            )
    tensors = [*module.named_parameters(), *module.named_buffers()]
    if any(is_lazy(t) for _, t in tensors):
        raise CaptureError("the model has lazy parts without weights yet: run it once first.")
    without = [name for name, t in tensors if t.is_meta]
    if without:
        raise CaptureError(
            f"the model is on the meta device ({without[0]}{', ...' * (len(without) > 1)}), where "
            "tensors have no values: load its weights, or model.to_empty(device='cpu') first."
        )
    training = [name or "the model itself" for name, part in _with_code(module) if part.training]
    if training:
        shown = ", ".join(training[:3]) + (", ..." if len(training) > 3 else "")
        raise TrainingModeError(
            f"the model is in training mode ({shown}), where its answer depends on the batch "
            "and on chance: call model.eval() first."
        )


def _with_code(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The parts that may do something else in training mode. Exported programs cannot, and
    nameless containers of parameters, as graph modules have them, do nothing."""
    exported = isinstance(module, fx.GraphModule) and "train" in vars(module)
    if exported or type(module).__module__.startswith("torch.export"):
        return
    if type(module) is not nn.Module:
        yield name, module
    for child, part in module.named_children():
        yield from _with_code(part, f"{name}.{child}" if name else child)


def _no_module(model: Any) -> str:
    kind = f"{type(model).__module__}.{type(model).__name__}"
    if kind.startswith(("keras.", "tensorflow.", "tf_keras.")):
        return (
            f"the model is a {kind} on another backend than PyTorch: save it, and load it with "
            "torchfbi.load('model.keras')."
        )
    inner = getattr(model, "model", None)
    if isinstance(inner, nn.Module):
        return f"the model is a {kind}: give the torch.nn.Module in it, its attribute model."
    return f"the model must be a torch.nn.Module, not {type(model).__name__}."


def _check_library(module: nn.Module) -> None:
    """Models of other libraries that are modules, but not ones from a tensor to a tensor."""
    bases = {base.__module__.partition(".")[0] for base in type(module).__mro__}
    inner = getattr(module, "model", None)
    if "ultralytics" in bases and "predictor" in vars(module) and isinstance(inner, nn.Module):
        raise CaptureError(
            "the model is an Ultralytics object, which reads files and draws boxes: give the "
            "network in it, yolo.model.eval()."
        )
    if "keras" in bases:
        raise CaptureError(
            "the model is a Keras model, which takes images with their channels last: wrap it, "
            "torchfbi.models.keras.wrap(model, 'name'), and give that."
        )
