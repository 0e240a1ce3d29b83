"""Networks and weights of your own: state dicts, exported programs, a function in a Python file.

Nothing is unpickled that could run code: weights are read with ``weights_only=True``, and an
exported program with a member that needs more is refused. A Python file given as
``path.py:function`` is of course run: that is what it is for.
"""

from __future__ import annotations

import importlib.util
import io
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import is_concrete_int
from torch.utils import _pytree as pytree

from torchfbi.errors import ModelError
from torchfbi.models.labels import Labels
from torchfbi.models.model import Model
from torchfbi.preprocess import Preprocess

IMAGENET = Preprocess(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What most networks were trained with; taken where nothing else is known."""

STATE_SUFFIXES = (".safetensors", ".pt", ".pth")


def from_function(place: str) -> Model:
    """The network that a function in a Python file returns.

    Args:
        place: ``"path/to/file.py:function"``. The function takes no arguments and returns an
            ``nn.Module``, or a ``Model`` that also brings preprocessing and labels.

    Raises:
        ModelError: the file or function is missing, fails, or returns something else.
    """
    file, _, name = place.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = getattr(module, name)()
    except Exception as error:
        raise ModelError(f"{place} failed: {type(error).__name__}: {error}") from error
    if isinstance(made, Model):
        return made
    if not isinstance(made, nn.Module):
        raise ModelError(f"{place} returned a {type(made).__name__}, not an nn.Module or a Model.")
    return wrap(made.eval(), place)


def from_program(path: Path) -> Model:
    """An exported program (``torch.export.save``), for images of the size it was exported with.

    Raises:
        ModelError: the file is missing, damaged, or holds a pickle that could run code.
    """
    try:
        _refuse_code(path)
        program: Any = torch.export.load(path)
        shape = program.graph.find_nodes(op="placeholder")[-1].meta["val"].shape
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: not an exported program: {_first_line(error)}") from error
    size = tuple(int(side) for side in shape[2:])
    if len(size) != 2 or int(shape[1]) not in (1, 3):
        raise ModelError(f"{path}: it takes {tuple(shape)}, not pictures (N, 1 or 3, H, W).")
    fitted = replace(IMAGENET, resize=max(size), crop=size)
    if int(shape[1]) == 1:
        fitted = replace(fitted, channels="L", mean=(0.0,), std=(1.0,))
    batch = int(shape[0]) if is_concrete_int(shape[0]) else 1
    return wrap(program.module(), path.name, fitted, batch)


def _refuse_code(path: Path) -> None:
    """torch.export.load unpickles without ``weights_only``: look at the parts beforehand."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            content = archive.read(member)
            if content.startswith((b"PK\x03\x04", b"\x80")):
                try:
                    torch.load(io.BytesIO(content), weights_only=True)
                except pickle.UnpicklingError as error:
                    raise ModelError(
                        f"{path}: its part {member} needs a pickle that could run code, which "
                        f"is refused: {_wanted(error)}."
                    ) from None


def with_weights(model: Model, path: Path) -> Model:
    """The same network with the weights of a file.

    Args:
        model: from its architecture, say ``load("torchvision:resnet18", pretrained=False)``.
        path: a state dict, ``.safetensors``, ``.pt`` or ``.pth``; a checkpoint that holds one
            under ``state_dict``, ``model`` or ``model_state_dict`` will do.

    Raises:
        ModelError: the file cannot be read, or does not fit the network.
    """
    state = _read_state(path)
    try:
        model.module.load_state_dict(state)
    except RuntimeError as error:
        problems = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ModelError(f"{path} does not fit {model.name}: {problems}") from None
    return replace(model, name=f"{model.name} with {path.name}")


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    if path.suffix not in STATE_SUFFIXES:
        raise ModelError(f"{path}: weights come as {', '.join(STATE_SUFFIXES)}.")
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path}: damaged, or not a file of weights: {_first_line(error)}"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"{path}: it holds no state dict: save model.state_dict().")
    # What DataParallel and torch.compile put in front of every name.
    return {
        name.removeprefix("module.").removeprefix("_orig_mod."): value
        for name, value in content.items()
    }


def _safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ModelError(
            "The package safetensors is missing. Install it: pip install safetensors"
        ) from error
    return load_file(path)


def _torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: it is a pickle that could run code when it is read, which is refused: "
            f"{_wanted(error)}. Where it came from, save the weights alone: "
            "torch.save(model.state_dict(), ...)."
        ) from None


def wrap(module: nn.Module, name: str, preprocess: Preprocess = IMAGENET, batch: int = 1) -> Model:
    """A network of unknown labels: its classes are counted by running it once on a blank image.

    Raises:
        ModelError: it does not take such an image.
    """
    blank = torch.zeros(batch, len(preprocess.mean), *preprocess.size)
    blank = blank.to(next(module.parameters(), blank))
    try:
        with torch.no_grad():
            outputs = pytree.tree_leaves(module(blank))
    except Exception as error:
        raise ModelError(
            f"{name} does not take an image of {tuple(blank.shape)}: {_first_line(error)}. Give "
            "its size, or return a torchfbi.Model with its own preprocessing."
        ) from error
    scores = [out for out in outputs if isinstance(out, Tensor) and out.ndim > 1]
    if not scores:
        raise ModelError(f"{name} returns no tensor (N, classes).")
    return Model(module, preprocess, Labels.numbered(scores[0].shape[1]), name)


def _wanted(error: pickle.UnpicklingError) -> str:
    """What a file needs beyond weights, out of PyTorch's advice on how to allow it."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it needs {found[1]}" if found else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
