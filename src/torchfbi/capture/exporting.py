"""Running a module once for ``torch.export``, with what Python asks of tensors answered."""

from __future__ import annotations

import contextlib
import functools
import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakTensorKeyDictionary

from torchfbi.capture import own, programs, rewrite
from torchfbi.capture.share import share_tensors
from torchfbi.errors import (
    CaptureError,
    ControlFlowError,
    InputError,
    OutputError,
    TorchFBIError,
    first_line,
)


def exported(module: nn.Module | ExportedProgram, example: Tensor) -> ExportedProgram:
    """The module as ``torch.export`` sees it, for any batch size unless its code wants one.

    Raises:
        InputError: the module, or the program, does not take such an input.
        ControlFlowError: its code decides by the values of a tensor what to run.
        CaptureError: ``torch.export`` failed for another reason.
    """
    if isinstance(module, ExportedProgram):
        _check_sizes(module, example)
        return module
    shadow = share_tensors(module)
    batch = example.shape[0]
    with contextlib.suppress(Exception):  # its code may want exactly the example's batch size
        program = _export(shadow, example, max(2, batch), any_batch=True)
        _check_parameters(program)
        size = programs.batch_size(program)
        if size == batch or (size is None and _takes_any_batch(program, shadow, example)):
            return program
    try:
        program = _export(shadow, example, batch)
        _check_parameters(program)
    except Exception as error:
        raise _diagnosis(shadow, example, error) from error
    return program


def _check_parameters(program: ExportedProgram) -> None:
    """Refuse what would be another network after it was asked."""
    parameters = program.graph_signature.inputs_to_parameters
    if written := [parameters[n] for n in rewrite.written(program.graph) if n in parameters]:
        raise CaptureError(
            f"the model's forward writes to its own parameters ({written[0]}), so that to ask it "
            "would change it: do that before, and not in its forward."
        )


def _takes_any_batch(program: ExportedProgram, module: nn.Module, example: Tensor) -> bool:
    """Whether the module's code does the same to any number of images.

    While it is traced, PyTorch writes down what its code asks about the batch size; only whether
    there is more than one image it takes for granted, so that is tried.
    """
    if programs.batch(program).node.shape_env.guards:
        return False
    noise = torch.rand(1, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    traced, asked = (own.outputs(each, noise.to(example)) for each in (program, module))
    return all(map(own.agree, traced.values(), asked.values()))


def _check_sizes(program: ExportedProgram, example: Tensor) -> None:
    made_for = programs.sizes(program)
    if len(made_for) != example.ndim or any(
        programs.concrete(ours) not in (None, theirs)
        for ours, theirs in zip(made_for[1:], example.shape[1:], strict=True)
    ):
        raise InputError(
            f"the program was exported for inputs {tuple(made_for)}, not {tuple(example.shape)}."
        )


def _export(
    module: nn.Module, example: Tensor, batch: int, any_batch: bool = False
) -> ExportedProgram:
    x = torch.empty(batch, *example.shape[1:], dtype=example.dtype, device=example.device)
    sizes = ({0: Dim.AUTO},) if any_batch else None
    try:
        with _answering(module, own.WithoutAutograd()):
            return torch.export.export(module, (x,), dynamic_shapes=sizes, strict=False)
    except Exception as error:
        if not _decides(error):
            raise
    # What it decides by may be constant: a check of its own parameters.
    with _answering(module, Constants(module)):
        return torch.export.export(module, (x,), dynamic_shapes=sizes, strict=False)


@contextlib.contextmanager
def _answering(module: nn.Module, mode: own.WithoutAutograd) -> Iterator[None]:
    """Run the module's forward under ``mode``, and return its outputs in plain containers."""
    forward = module.forward

    @functools.wraps(forward)
    def answered(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return own.plain(forward(*args, **kwargs))

    module.forward = answered
    try:
        yield
    finally:
        del module.forward  # the class's own again
        if module.forward != forward:
            module.forward = forward


class Constants(own.WithoutAutograd):
    """Knows the values of all that does not depend on the image, and tells them to Python.

    ``torch.export`` runs a module on tensors without values, so that a check of the module's own
    parameters (``if (std == 0).any()``) cannot be decided. Here what is computed from parameters
    and constants alone is computed with their values too.

    Args:
        module: the module that is to be traced, before its tensors are taken from it.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self._before = dict(_named_tensors(module))
        self._values = WeakTensorKeyDictionary()

    def __enter__(self) -> Any:
        for name, traced in _named_tensors(self._module):
            self._values[traced] = self._before[name]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The answer for known values where that is no tensor; else the function's own."""
        leaves, spec = pytree.tree_flatten((args, kwargs))
        known = [self._known(leaf) for leaf in leaves]
        if any(value is None for value in known) or _writes(func, kwargs):
            for leaf in leaves:
                if _writes(func, kwargs) and isinstance(leaf, Tensor):
                    self._values.pop(leaf, None)  # type: ignore[no-untyped-call]
            return func(*args, **kwargs)
        args_, kwargs_ = pytree.tree_unflatten([value for (value,) in known], spec)  # type: ignore[misc]
        state = torch.random.get_rng_state()
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            value = func(*args_, **kwargs_)
            chance = not torch.equal(torch.random.get_rng_state(), state)
            if chance:
                torch.random.set_rng_state(state)
        values, _ = pytree.tree_flatten(value)
        if not chance and not any(isinstance(leaf, Tensor) for leaf in values):
            return value
        traced = func(*args, **kwargs)
        for ours, theirs in zip(pytree.tree_leaves(traced), values, strict=False):
            if isinstance(ours, Tensor) and not chance:
                self._values[ours] = theirs
        return traced

    def _known(self, leaf: Any) -> tuple[Any] | None:
        """The leaf's value in a tuple, or None where it depends on the image or its size."""
        if isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool):
            return None
        if not isinstance(leaf, Tensor):
            return (leaf,)
        if leaf in self._values:
            return (self._values[leaf],)
        is_plain = type(leaf) in (Tensor, nn.Parameter)  # an attribute that is no buffer
        return (leaf,) if is_plain and not isinstance(leaf, FakeTensor) else None


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _writes(func: Any, kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__setitem__", "__set__") or kwargs.get("out") is not None


def _decides(error: Exception) -> bool:
    words = ("data-dependent", "dynamic control flow", "fake tensor", ".numpy() is not supported")
    return _needs_values(error) or any(word in str(error) for word in words)


def _needs_values(error: Exception) -> bool:
    """Whether an operator returns a number or a decision, as ``torch.equal`` does."""
    return isinstance(error, DataDependentOutputException)


def _diagnosis(module: nn.Module, example: Tensor, error: Exception) -> Exception:
    if isinstance(error, TorchFBIError):
        return error
    shape = tuple(example.shape)
    try:
        with own.WithoutAutograd():
            answer = module(torch.zeros_like(example))
    except Exception as refusal:
        return InputError(
            f"the model rejects an input of shape {shape}: {first_line(refusal)}"
            f"{_other_inputs(module)}"
        )
    text = str(error)
    if _needs_values(error) or "data-dependent" in text or "dynamic control flow" in text:
        frames = traceback.extract_tb(error.__traceback__)
        places = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
        where = f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""
        return ControlFlowError(
            f"the model's forward{where} decides by the values of a tensor which operators to "
            "run, so it has no single graph: replace the branch, for example by torch.where."
        )
    if "output, which is not a known type" in text:
        return OutputError(
            f"the model returns a {type(answer).__name__}, of which torch.export does not know "
            "the parts: return a tensor, or tensors in a tuple, dictionary or dataclass."
        )
    return CaptureError(f"torch.export could not capture the model: {first_line(error)}")


_NOT_THEIRS = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent), "<")
"""Where the code of no network lies: this package's, PyTorch's, and what that makes up."""


def _other_inputs(module: nn.Module) -> str:
    """What to do about inputs beside the image."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return ""
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if not needed:
        return ""
    return (
        f". Its forward wants {', '.join(needed)} as well: give explain or export all of them, "
        f"(image, {', '.join(needed)}); on the command line explain, batch and export take --input "
        f"{needed[0]}=FILE. Elsewhere wrap it in a module of one input that passes the others "
        "fixed."
    )
