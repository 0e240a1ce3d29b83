"""Networks by name, from a file, or from a function in a Python file."""

from __future__ import annotations

import contextlib
import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from torchfbi.errors import ModelError
from torchfbi.models import embedded, files, keras, onnx, programs, timm, torchvision
from torchfbi.models import weights as state_dicts
from torchfbi.models.labels import Labels
from torchfbi.models.model import Listing, Model

__all__ = ["DEFAULT", "Labels", "Listing", "Model", "available", "describe", "load"]

DEFAULT = "efficientnet-lite0"

LIBRARIES: dict[str, Any] = {"torchvision": torchvision, "timm": timm, "keras": keras}
"""Each has ``names()``, ``describe(name)`` and ``load(name, pretrained)``, and ``count(name)`` for
parameters that it does not publish; its networks are called ``library:name``."""

FORMATS: dict[str, Any] = {
    ".pt2": programs.load,
    ".keras": keras.from_file,
    ".h5": keras.from_file,
    ".onnx": onnx.load,
}
"""Files that hold a whole network, by suffix: path -> Model."""


def available() -> list[str]:
    """The names that ``load`` knows: the embedded networks, and those of installed libraries."""
    names = list(embedded.MODELS)
    for prefix, library in LIBRARIES.items():
        with contextlib.suppress(ModelError):
            names += [f"{prefix}:{name}" for name in library.names()]
    return names


def describe(name: str, count: bool = False) -> Listing:
    """What is known of one of ``available()`` without loading its weights.

    Args:
        name: the network.
        count: count the parameters where their number is in no table, which takes a tenth of
            a second or more.

    Raises:
        ModelError: the name is unknown.
    """
    if name in embedded.MODELS:
        return embedded.describe(name)
    family, _, member = name.rpartition(":")
    if family not in LIBRARIES:
        raise ModelError(f"There is no model {name!r}. {_suggest(member)}")
    library = LIBRARIES[family]
    listing: Listing = library.describe(member)
    if count and listing.parameters is None and hasattr(library, "count"):
        with contextlib.suppress(ModelError):
            return listing._replace(parameters=library.count(member))
    return listing


def load(
    name: str = DEFAULT,
    pretrained: bool = True,
    weights: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
) -> Model:
    """Load a network, in eval mode and frozen, on the CPU.

    Args:
        name: one of ``available()``, such as ``"efficientnet-lite0"`` or
            ``"torchvision:resnet50"``; a file that holds a whole network; or
            ``"path.py:function"``, a function without arguments that returns an ``nn.Module``
            (preprocessed as for ImageNet) or a ``Model``.
        pretrained: False gives random weights (seed them with ``torch.manual_seed``).
        weights: a state dict for the network, of safetensors or ``torch.save``, or a checkpoint
            that holds one; for those of Keras ``.h5``.
        labels: a file with the names of the classes, see ``Labels.read``.

    Raises:
        ModelError: the name is unknown, the package or the weights behind it are missing, or the
            labels do not fit.
    """
    if labels is not None:
        model = load(name, pretrained, weights)
        return replace(model, labels=Labels.read(Path(labels), len(model.labels)))
    if weights is not None:
        model = load(name, pretrained=False)
        of_keras = Path(weights).is_file() and state_dicts.kind_of(Path(weights)) == "HDF5"
        source = keras if of_keras or Path(weights).suffix == ".h5" else state_dicts
        return source.with_weights(model, Path(weights))
    # Building a network draws random weights, even if they are replaced a moment later.
    with torch.random.fork_rng(devices=[], enabled=pretrained):
        if name in embedded.MODELS:
            return embedded.MODELS[name](pretrained)
        family, _, member = name.rpartition(":")
        if family in LIBRARIES and member in LIBRARIES[family].names():
            return LIBRARIES[family].load(member, pretrained)
        if family.endswith(".py"):
            return files.from_function(name)
        if Path(name).suffix in FORMATS:
            return FORMATS[Path(name).suffix](Path(name))
        if Path(name).is_file() and state_dicts.kind_of(Path(name)) == "program":
            return programs.load(Path(name))
    if Path(name).is_file():
        raise ModelError(state_dicts.no_network(Path(name)))
    if Path(name).suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar"):
        raise ModelError(f"{name}: there is no such file.")
    raise ModelError(f"There is no model {name!r}. {_suggest(member)}")


def _suggest(name: str) -> str:
    full_names = {known.rpartition(":")[2]: known for known in reversed(available())}
    close = difflib.get_close_matches(name.lower(), full_names, n=5)
    if close:
        return f"Did you mean {' or '.join(full_names[match] for match in close)}?"
    libraries = ", ".join(f"{prefix}:<name>" for prefix in LIBRARIES)
    return f"Known are {', '.join(embedded.MODELS)}, {libraries}, and files: see the README."
