"""``--input NAME=FILE``: the further inputs of a network of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfbi import api
from torchfbi.errors import InputError, SettingsError
from torchfbi.explanation.explanation import Explanation
from torchfbi.explanation.several import InputExplanations, of_the_photo
from torchfbi.method.settings import Settings
from torchfbi.models import Model
from torchfbi.models.images import Photo
from torchfbi.models.preprocess import Region


@dataclass(frozen=True)
class Input:
    """What a network is given: a tensor (1, ...), and the photo that it was, if it was one."""

    tensor: Tensor
    photos: tuple[Photo, ...] = ()
    regions: tuple[Region, ...] = ()

    @classmethod
    def read(cls, file: Path, network: Model) -> Input:
        """An array as it is, or a photo as the network takes it.

        Raises:
            InputError: it is no array, or not of one sample.
            ImageError: it is no photo.
        """
        if file.suffix != ".npy":
            return cls(*api.as_batch(network, file))
        try:
            tensor = torch.from_numpy(np.load(file, allow_pickle=False))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{file} is no array of numbers: {error}") from None
        if not tensor.ndim or len(tensor) != 1:
            raise InputError(f"{file} has shape {tuple(tensor.shape)}: give one sample, (1, ...).")
        like = next(network.module.parameters(), torch.zeros(()))
        return cls(tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device))


def read(given: list[str], network: Model) -> dict[str, Input]:
    """The inputs by the names of the forward's arguments.

    Raises:
        SettingsError: not of the form NAME=FILE. And what ``Input.read`` raises.
    """
    found: dict[str, Input] = {}
    for assignment in given:
        name, equals, file = assignment.partition("=")
        if not (name and equals and file) or name in found:
            raise SettingsError(f"--input {assignment}: write NAME=FILE, each name once.")
        found[name] = Input.read(Path(file), network)
    return found


def together(network: Model, photos: Any, others: dict[str, Input]) -> dict[str, Tensor]:
    """The network's inputs for several photos, with the same others for each; the first is the
    photo's.

    Raises:
        InputError: all inputs were named. ImageError: a photo cannot be read.
    """
    tensor, _, _ = api.as_batch(network, photos)
    held = {
        name: each.tensor.expand(len(tensor), *each.tensor.shape[1:])
        for name, each in others.items()
    }
    return {of_the_photo(network.module, others): tensor, **held}


def explain(
    network: Model,
    image: Path,
    others: dict[str, Input],
    target: str | None,
    settings: Settings,
    low_memory: bool,
) -> tuple[dict[str, Explanation], dict[str, float]]:
    """An explanation for each image among the inputs, and the share of each input, by their names.
    The photo is the first input that was not named.

    Raises:
        InputError: all inputs were named. And what ``torchfbi.explain`` raises.
    """
    inputs = {of_the_photo(network.module, others): Input.read(image, network), **others}
    tensors = {name: each.tensor for name, each in inputs.items()}
    found: InputExplanations = api.explain(
        network, tensors, target, settings, low_memory=low_memory
    )
    explanations = {
        name: replace(explanation, photos=inputs[name].photos, regions=inputs[name].regions)
        for name, explanation in found.items()
    }
    return explanations, {name: float(share) for name, share in found.shares.items()}
