"""Networks by name."""

from __future__ import annotations

import contextlib
import difflib

import torch

from torchfbi.errors import ModelError
from torchfbi.models import embedded, torchvision
from torchfbi.models.labels import Labels
from torchfbi.models.model import Model

__all__ = ["DEFAULT", "Labels", "Model", "available", "load"]

DEFAULT = "efficientnet-lite0"


def available() -> list[str]:
    """The names that ``load`` knows: the embedded networks, and torchvision's if it is there."""
    names = list(embedded.MODELS)
    with contextlib.suppress(ModelError):
        names += [f"torchvision:{name}" for name in torchvision.names()]
    return names


def load(name: str = DEFAULT, pretrained: bool = True) -> Model:
    """Load a network, in eval mode and frozen, on the CPU.

    Args:
        name: one of ``available()``, such as ``"efficientnet-lite0"`` or
            ``"torchvision:resnet50"``.
        pretrained: False gives random weights (seed them with ``torch.manual_seed``).

    Raises:
        ModelError: the name is unknown, or the package or the weights behind it are missing.
    """
    # Building a network draws random weights, even if they are replaced a moment later.
    with torch.random.fork_rng(devices=[], enabled=pretrained):
        if name in embedded.MODELS:
            return embedded.MODELS[name](pretrained)
        family, _, member = name.rpartition(":")
        if family == "torchvision" and member in torchvision.names():
            return torchvision.load(member, pretrained)
    raise ModelError(f"There is no model {name!r}. {_suggest(member)}")


def _suggest(name: str) -> str:
    full_names = {known.rpartition(":")[2]: known for known in available()}
    close = difflib.get_close_matches(name.lower(), full_names, n=5)
    if close:
        return f"Did you mean {' or '.join(full_names[match] for match in close)}?"
    return f"Known are {', '.join(embedded.MODELS)} and torchvision:<classifier>, e.g. resnet50."
