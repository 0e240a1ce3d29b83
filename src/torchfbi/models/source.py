"""A network as somebody names and describes it: to be loaded, here or by a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchfbi.errors import usable
from torchfbi.models import load
from torchfbi.models.model import Model


@dataclass(frozen=True)
class Source:
    """Where a network comes from, and what was said about it.

    Args:
        name: what ``torchfbi.load`` knows it by.
        weights: a file of weights for it.
        labels: a file with the names of its classes.
        said: about its inputs, see ``Model.with_preprocess``.
        device: where it is to run.
    """

    name: str
    weights: Path | None = None
    labels: Path | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def load(self) -> Model:
        """The network, on its device.

        Raises:
            TorchFBIError: as for ``torchfbi.load`` and ``Model.with_preprocess``, or there is no
                such device.
        """
        loaded = load(self.name, weights=self.weights, labels=self.labels)
        if self.device != "cpu":
            with usable(self.device):
                loaded.module.to(self.device)
        return loaded.with_preprocess(**self.said)

    def program(self) -> str:
        """The network as a Python expression that ``torchfbi.explain`` takes, on the CPU."""
        files = {"weights": self.weights, "labels": self.labels}
        given = [f"{name}={str(path)!r}" for name, path in files.items() if path is not None]
        said = [f"{name}={value!r}" for name, value in self.said.items() if value is not None]
        if not given and not said:
            return repr(self.name)
        described = f".with_preprocess({', '.join(said)})" if said else ""
        return f"torchfbi.load({', '.join([repr(self.name), *given])}){described}"
