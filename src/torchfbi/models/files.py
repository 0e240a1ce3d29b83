"""Networks and weights of your own: state dicts, and a function in a Python file.

Nothing is unpickled that could run code: weights are read with ``weights_only=True``. A Python
file given as ``path.py:function`` is of course run: that is what it is for.
"""

from __future__ import annotations

import importlib.util
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchfbi.errors import ModelError, first_line
from torchfbi.models.labels import Labels
from torchfbi.models.model import Model
from torchfbi.preprocess import Preprocess
from torchfbi.reading import unpacked

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
            f"{path}: damaged, or not a file of weights: {first_line(error)}"
        ) from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
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


def refuse_bombs(archive: zipfile.ZipFile, size: int, name: object) -> None:
    """PyTorch does not compress, so that the parts of its files are never larger than the file.

    Raises:
        ModelError: these are.
    """
    if unpacked(archive) > size:
        raise ModelError(f"{name}: its parts are compressed or overlap, which PyTorch never does.")


def _torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            refuse_bombs(archive, path.stat().st_size, path)
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
            f"{name} does not take an image of {tuple(blank.shape)}: {first_line(error)}. Give "
            "its size, or return a torchfbi.Model with its own preprocessing."
        ) from error
    scores = [out for out in outputs if isinstance(out, Tensor) and out.ndim > 1]
    if not scores:
        raise ModelError(f"{name} returns no tensor (N, classes).")
    return Model(module, preprocess, Labels.numbered(scores[0].shape[1]), name)


def _wanted(error: pickle.UnpicklingError) -> str:
    """What a file needs beyond weights, out of PyTorch's advice on how to allow it."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it needs {found[1]}" if found else first_line(error)
