"""Weights from a file, told by its content: its name may end in anything.

Nothing is unpickled that could run code: weights are read with ``weights_only=True``.
"""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchfbi.errors import ModelError, first_line
from torchfbi.models.labels import Labels
from torchfbi.models.model import Model
from torchfbi.system.reading import unpacked

Kind = Literal[
    "safetensors", "pickle", "TorchScript", "program", "Keras", "HDF5", "pointer", "page", "other"
]


def kind_of(path: Path) -> Kind:
    """What a file holds, by its first bytes or, of an archive, by the names of its parts.

    Raises:
        ModelError: it is missing, or no regular file.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    with path.open("rb") as file:
        start = file.read(9)
    if zipfile.is_zipfile(path):
        return _kind_of_archive(path)
    if start.startswith(b"\x89HDF"):
        return "HDF5"
    if start[8:] in (b"{", b"["):  # after the length of its header
        return "safetensors"
    return _instead_of(start) or ("pickle" if start.startswith(b"\x80") else "other")


def instead_of(start: bytes) -> str | None:
    """What came in place of a file that was downloaded, by its first nine bytes, and what to do;
    None where neither a pointer nor a page did."""
    kind = _instead_of(start)
    return None if kind is None else _INSTEAD[kind]


def _instead_of(start: bytes) -> Literal["pointer", "page"] | None:
    if start.startswith(b"version h"):
        return "pointer"
    return "page" if start.startswith(b"<") else None


def _kind_of_archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
            folders = {part for name in archive.namelist() for part in name.split("/")[:-1]}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: damaged: {first_line(error)}") from error
    if "constants.pkl" in names and "code" in folders:
        return "TorchScript"
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "program"
    return "Keras" if {"config.json", "model.weights.h5"} <= names else "pickle"


def no_network(path: Path) -> str:
    """Why a file is no network that can be loaded, and what to do."""
    match kind_of(path):
        case "pointer" | "page" as instead:
            return f"{path}: it is {_INSTEAD[instead]}"
        case "TorchScript":
            return (
                f"{path} is a TorchScript network, which torch.export does not read: build the "
                "original nn.Module, and save that as an exported program (torch.export.save)."
            )
        case "pickle" if found := _module_in(path):
            return (
                f"{path} is a pickled module ({found}), which is code: where it came from, save "
                "its weights (torch.save(model.state_dict(), ...)), and name the network: "
                "torchfbi.load('net.py:make', weights=...)."
            )
        case "other" if path.suffix == ".py":
            return (
                f"{path} is Python code: name the function in it that returns the network, "
                f"{path}:FUNCTION."
            )
        case "other" if path.suffix not in _NAMED:
            return f"{path} is neither a network nor a file of weights that torchfbi reads."
    return (
        f"{path} holds weights, no network: name the network and give this file as its weights, "
        "for example --model torchvision:resnet18 --weights FILE."
    )


def with_weights(model: Model, path: Path) -> Model:
    """The same network with the weights of a file, and as many classes as they have.

    Args:
        model: from its architecture, say ``load("torchvision:resnet18", pretrained=False)``.
        path: a state dict, of safetensors or ``torch.save``; a checkpoint that holds one will do,
            and names that have the same words in front (``model.``, ``module.``).

    Raises:
        ModelError: the file cannot be read, or does not fit the network.
    """
    state = _of_network(_read_state(path), model.module, path)
    model = _with_as_many_classes(model, state)
    own = model.module.state_dict()
    if any(
        not v.is_floating_point() and own[n].is_floating_point()
        for n, v in state.items()
        if n in own
    ):
        raise ModelError(f"{path}: {_QUANTISED}")
    try:
        model.module.load_state_dict(state)
    except RuntimeError as error:
        problems = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ModelError(f"{path} does not fit {model.name}: {problems}") from None
    return replace(model, name=f"{model.name} with {path.name}")


def _with_as_many_classes(model: Model, state: dict[str, Tensor]) -> Model:
    """The network, whose head was exchanged if the weights are of one with other classes, as after
    fine-tuning."""
    labels = model.labels
    for name, layer in list(model.module.named_modules()):
        weight = state.get(f"{name}.weight")
        is_head = isinstance(layer, nn.Linear) and layer.out_features == len(model.labels)
        if is_head and weight is not None and weight.shape != layer.weight.shape:
            bias = layer.bias is not None
            head = nn.utils.skip_init(nn.Linear, layer.in_features, len(weight), bias)  # type: ignore[no-untyped-call]
            model.module.set_submodule(name, head.eval().requires_grad_(False))
            labels = Labels.numbered(len(weight))
    return replace(model, labels=labels)


def _of_network(state: dict[str, Tensor], module: nn.Module, path: Path) -> dict[str, Tensor]:
    """The entries of the network itself, under its own names.

    Wrappers put words in front of every name (Lightning ``model.``, DataParallel ``module.``,
    ``torch.compile`` ``_orig_mod.``), and their checkpoints hold other parts beside.
    """
    wanted = [name for name, _ in module.named_parameters()] or list(module.state_dict())
    if not wanted or wanted[0] in state:
        return state
    prefixes = [
        name.removesuffix(wanted[0])
        for name in state
        if name.endswith(f".{wanted[0]}")
        and all(name.removesuffix(wanted[0]) + other in state for other in wanted)
    ]
    if len(prefixes) > 1:
        raise ModelError(
            f"{path} holds several such networks, {', '.join(prefixes)}: save the state dict of "
            "the one that you mean."
        )
    if not prefixes:
        return state
    front = prefixes[0]
    return {name.removeprefix(front): t for name, t in state.items() if name.startswith(front)}


_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights",
    "module", "params", "model_weights", "net_state_dict",
)  # fmt: skip
"""Under which checkpoints usually hold the state dict."""


def _read_state(path: Path) -> dict[str, Tensor]:
    found = kind_of(path)
    if found in ("TorchScript", "Keras", "program"):
        raise ModelError(f"{path} holds a whole network ({found}), no state dict: {_LOADED[found]}")
    if found == "HDF5":
        raise ModelError(f"{path}: it is HDF5, which holds weights for Keras alone.")
    if found in _INSTEAD:
        raise ModelError(f"{path}: it is {_INSTEAD[found]}")
    if found == "other" and path.suffix in _NAMED:
        found = "safetensors" if path.suffix == ".safetensors" else "pickle"
    if found == "other":
        raise ModelError(f"{path}: weights come as safetensors, or as torch.save writes them.")
    try:
        content = _safetensors(path) if found == "safetensors" else _torch(path)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path}: damaged, or not a file of weights: {first_line(error)}"
        ) from error
    while isinstance(content, dict) and (key := next(_nested(content), None)):
        content = content[key]
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path}: it holds no state dict: save model.state_dict().")
    if any(value.is_quantized for value in content.values()):
        raise ModelError(f"{path}: {_QUANTISED}")
    return dict(content)


_QUANTISED = (
    "its weights are quantised, and integers have no adjoint: save those of the network as it was "
    "before it was converted."
)


_INSTEAD = {
    "pointer": "a pointer to a file in Git LFS: get that (git lfs pull).",
    "page": "a web page: get the file that it speaks of.",
}
_NAMED = (".safetensors", ".pt", ".pth")
_LOADED = {
    "TorchScript": "build the original nn.Module and save its model.state_dict().",
    "Keras": "load it by its name alone.",
    "program": "load it by its name alone, ending in .pt2.",
}


def _nested(content: Collection[Any]) -> Iterator[str]:
    """The usual keys that hold a dictionary."""
    return (key for key in _KEYS if isinstance(content.get(key), dict))  # type: ignore[attr-defined]


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
        with torch.serialization.safe_globals([argparse.Namespace]):  # of the training script
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := _module_in(path):
            raise ModelError(
                f"{path}: it is a pickle that could run code when it is read, a whole module: it "
                f"needs {found}. Where it came from, save the weights alone: "
                "torch.save(model.state_dict(), ...)."
            ) from None
        raise ModelError(
            f"{path}: it is a pickle that could run code when it is read, which is refused: "
            f"{_wanted(error)}. Where it came from, save the weights alone: "
            "torch.save(model.state_dict(), ...)."
        ) from None


def _module_in(path: Path) -> str | None:
    """The class of a module that the file would build, if it is one."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # damaged, or no pickle
        return None
    of_torch = (name for name in found if name.startswith("torch.nn.modules."))
    return next(of_torch, None)


def _wanted(error: pickle.UnpicklingError) -> str:
    """What a file needs beyond weights, out of PyTorch's advice on how to allow it."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it needs {found[1]}" if found else first_line(error)
