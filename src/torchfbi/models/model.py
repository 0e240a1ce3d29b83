"""What torchfbi needs to know about a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from torchfbi.errors import ModelError
from torchfbi.models.labels import Labels
from torchfbi.models.preprocess import Preprocess

Assumed = tuple[Literal["mean", "std", "framing"], ...]
"""Which parts of a preprocessing nobody said."""


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A classifier together with what turns photos into its inputs and its outputs into words.

    Args:
        module: in eval mode; float32 (N, C, H, W) -> logits (N, classes).
        preprocess: photo -> (C, H, W).
        labels: the names of the classes.
        name: what ``torchfbi.load`` knows it by, or any name of yours.
        assumed: what of the preprocessing was taken without anyone having said so, as no file
            tells it. A wrong guess gives a wrong answer that looks right: it is said wherever an
            explanation is shown.

    Raises:
        ModelError: the labels are no names, or the preprocessing is none of ours.
    """

    module: nn.Module
    preprocess: Preprocess
    labels: Labels
    name: str
    assumed: Assumed = ()

    def __post_init__(self) -> None:
        if not isinstance(self.preprocess, Preprocess):
            kind = f"{type(self.preprocess).__module__}.{type(self.preprocess).__name__}"
            raise ModelError(
                f"the preprocessing is a {kind}: give torchfbi.Preprocess(resize=..., crop=..., "
                "mean=..., std=...) with its numbers, which also knows the part of the photo that "
                "the network sees."
            )
        if not isinstance(self.labels, Labels):
            names: Any = self.labels
            listed = isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)
            if not (listed and names):
                raise ModelError(
                    f"the labels are {names!r:.80}: give the names of all classes, "
                    "torchfbi.Labels([...])."
                )
            object.__setattr__(self, "labels", Labels(names))

    def placed(self, x: Tensor) -> Tensor:
        """The tensor in the network's dtype and on its device."""
        return x.to(next(self.module.parameters(), x))

    def blank(self) -> Tensor:
        """One black image as the network takes it, (1, C, H, W)."""
        channels = len(self.preprocess.mean)
        return self.placed(torch.zeros(1, channels, *self.preprocess.size))

    def warnings(self) -> tuple[str, ...]:
        """What of the preprocessing was assumed, as a sentence; empty where all of it is known."""
        return guessed(self.preprocess, self.assumed)

    def with_preprocess(self, **said: Any) -> Model:
        """The network with what somebody says about its inputs, which is then not assumed.

        Args:
            said: fields of ``Preprocess``; None where nothing was said. One number of ``mean`` or
                ``std`` stands for all channels. Where ``channels`` turns the order around, a mean
                and a standard deviation that nobody said go with their colours.

        Raises:
            SettingsError: as for ``Preprocess``.
        """
        changes = {name: value for name, value in said.items() if value is not None}
        for name in {"mean", "std"} & changes.keys():
            if len(changes[name]) == 1:
                changes[name] = [*changes[name]] * len(self.preprocess.mean)
        known = {*changes, "framing"} if {"resize", "crop", "fit"} & changes.keys() else {*changes}
        if {self.preprocess.channels, changes.get("channels")} == {"RGB", "BGR"}:
            for name in {"mean", "std"} - changes.keys():
                changes[name] = getattr(self.preprocess, name)[::-1]
        return replace(
            self,
            preprocess=replace(self.preprocess, **changes),
            assumed=tuple(part for part in self.assumed if part not in known),
        )

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.module.parameters())
        height, width = self.preprocess.size
        return (
            f"Model({self.name}: {self.preprocess.channels} {height}x{width}, "
            f"{len(self.labels)} classes, {parameters:,} parameters)"
        )


def guessed(preprocess: Preprocess | None, assumed: Sequence[str]) -> tuple[str, ...]:
    """What of a preprocessing was assumed, as a sentence; empty where all of it is known."""
    if preprocess is None or not assumed:
        return ()
    told = "; ".join(words for part, words in preprocess.words().items() if part in assumed)
    return (
        f"Assumed, since nobody said how the network's inputs were made: {told}. Where that is "
        "wrong, so is what is shown: 'torchfbi check' compares the usual ways.",
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
