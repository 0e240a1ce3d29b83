"""What torchfbi needs to know about a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from torchfbi.models.labels import Labels
from torchfbi.preprocess import Preprocess


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A classifier together with what turns photos into its inputs and its outputs into words.

    Args:
        module: in eval mode; float32 (N, C, H, W) -> logits (N, classes).
        preprocess: photo -> (C, H, W).
        labels: the names of the classes.
        name: what ``torchfbi.load`` knows it by, or any name of yours.
    """

    module: nn.Module
    preprocess: Preprocess
    labels: Labels
    name: str

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.module.parameters())
        height, width = self.preprocess.size
        return (
            f"Model({self.name}: {self.preprocess.channels} {height}x{width}, "
            f"{len(self.labels)} classes, {parameters:,} parameters)"
        )


class Listing(NamedTuple):
    """What is known of a network before it is loaded.

    Args:
        name: what ``torchfbi.load`` takes.
        parameters: how many, or None where only building it would tell.
        input: its preprocessing's size, such as ``"224x224"``.
        source: the package that defines it.
        weights: where trained ones are: "installed", "on disk", "to download" or "none".
    """

    name: str
    parameters: int | None
    input: str
    source: str
    weights: str
