"""An image whose evidence is known, and a set of them with the network that they are for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchfbi.errors import InputError, SettingsError
from torchfbi.models import Model


@dataclass(frozen=True, eq=False)
class Scene:
    """One image, one class, and where in the image its evidence lies.

    Args:
        name: what it shows; unique within its suite.
        picture: the image as the network sees it, uint8 (H, W, 3), RGB.
        x: the same prepared, floating point (C, H, W).
        target: the probed class.
        mask: the pixels of the target's own object, bool (H, W), at least one of them True; None
            where nobody knows.
        cell: the grid cell that the object stands in, bool (H, W); None off grids.
        rival: the class of another object in the same image; None where there is none.

    Raises:
        InputError: the arrays have not the same height and width, or a mask is empty.
    """

    name: str
    picture: npt.NDArray[np.uint8]
    x: Tensor
    target: int
    mask: Tensor | None = None
    cell: Tensor | None = None
    rival: int | None = None

    def __post_init__(self) -> None:
        size = self.x.shape[1:]
        if self.picture.shape != (*size, 3):
            raise InputError(f"{self.name}: a picture {self.picture.shape} and x {tuple(size)}.")
        for part in (self.mask, self.cell):
            if part is not None and (part.shape != size or part.dtype != torch.bool):
                raise InputError(f"{self.name}: masks and cells are bool {tuple(size)}.")
            if part is not None and not part.any():
                raise InputError(f"{self.name}: no pixel belongs to the object or its cell.")

    @property
    def kind(self) -> tuple[torch.Size, bool, bool, bool]:
        """The shape of x, and whether mask, cell and rival are known: what can be stacked."""
        known = (part is not None for part in (self.mask, self.cell, self.rival))
        return self.x.shape, *known  # type: ignore[return-value]


class Batch(NamedTuple):
    """Scenes of one kind, stacked.

    Args:
        indices: which of the suite's scenes they are.
        x: (N, C, H, W).
        target: (N,) int64.
        mask: (N, H, W) bool, or None.
        cell: (N, H, W) bool, or None.
        rival: (N,) int64, or None.
    """

    indices: tuple[int, ...]
    x: Tensor
    target: Tensor
    mask: Tensor | None
    cell: Tensor | None
    rival: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Suite:
    """Scenes for one network.

    Args:
        name: what ``load_suite`` knows it by, or the name of a folder.
        description: in a sentence or two, what its scenes are and where their truth comes from.
        model: the network that the scenes were made for.
        scenes: at least one.
        refused: pictures that are not among the scenes, each with the reason.

    Raises:
        InputError: there is no scene.
    """

    name: str
    description: str
    model: Model
    scenes: tuple[Scene, ...]
    refused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.scenes:
            raise InputError(f"the suite {self.name} has no scene.")

    def __len__(self) -> int:
        return len(self.scenes)

    def batches(self, size: int = 8) -> Iterator[Batch]:
        """All scenes, at most ``size`` at a time, those of one kind together.

        Raises:
            SettingsError: a size below 1.
        """
        if size < 1:
            raise SettingsError(f"size={size}: a batch holds at least one scene.")
        kinds: dict[tuple[torch.Size, bool, bool, bool], list[int]] = {}
        for index, scene in enumerate(self.scenes):
            kinds.setdefault(scene.kind, []).append(index)
        for alike in kinds.values():
            for start in range(0, len(alike), size):
                yield self._stack(alike[start : start + size])

    def _stack(self, indices: list[int]) -> Batch:
        scenes = [self.scenes[index] for index in indices]
        return Batch(
            indices=tuple(indices),
            x=torch.stack([scene.x for scene in scenes]),
            target=torch.tensor([scene.target for scene in scenes]),
            mask=_stacked([scene.mask for scene in scenes]),
            cell=_stacked([scene.cell for scene in scenes]),
            rival=_stacked([_number(scene.rival) for scene in scenes]),
        )


def _stacked(parts: list[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.stack(known) if known else None


def _number(number: int | None) -> Tensor | None:
    return None if number is None else torch.tensor(number)
