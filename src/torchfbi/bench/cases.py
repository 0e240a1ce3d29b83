"""What is explained: a network, a batch of images, and a class of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from torchfbi.errors import InputError, SettingsError, first_line, usable
from torchfbi.models import LIBRARIES, load
from torchfbi.models.images import Photo
from torchfbi.models.untrained import untrained

DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Case:
    """One network and one batch.

    Args:
        model: as ``torchfbi.load`` takes it. Architectures of torchvision, timm and Keras get
            random weights, which need no download; what brings its weights along keeps them.
        batch: how many images.
        dtype: ``"float32"`` or ``"bfloat16"``, of everything but the reference.
        size: the side of the square images in pixels; None for what the network was made for.
        image: a photo that all samples show; None for random numbers.
        device: where everything runs, ``"cpu"`` or ``"cuda"``.
        weights: a file of weights for the network.

    Raises:
        SettingsError: an unknown dtype, or a batch or size below one.
    """

    model: str
    batch: int = 1
    dtype: DType = "float32"
    size: int | None = None
    image: Path | None = None
    device: str = "cpu"
    weights: Path | None = None

    def __post_init__(self) -> None:
        if self.dtype not in get_args(DType):
            choices = " or ".join(get_args(DType))
            raise SettingsError(f"dtype is {self.dtype!r}: choose {choices}.")
        if self.batch < 1 or (self.size is not None and self.size < 1):
            raise SettingsError(
                f"batch is {self.batch} and size {self.size}: they must be at least 1."
            )

    @property
    def trained(self) -> bool:
        """Whether the weights are trained ones."""
        return self.weights is not None or self.model.partition(":")[0] not in LIBRARIES


class Task(NamedTuple):
    """A case made ready.

    Args:
        module: the network, in eval mode and frozen.
        x: the images, (N, C, H, W) in the network's dtype.
        target: the most probable class of each, (N,) int64.
    """

    module: nn.Module
    x: Tensor
    target: Tensor


def build(case: Case, seed: int = 0) -> Task:
    """Load the network and make the images.

    Args:
        case: what.
        seed: of random weights and images.

    Raises:
        ModelError: the network is unknown, or something behind it is missing.
        SettingsError: there is no such device.
        ImageError: the photo cannot be read.
        InputError: the network does not take such images, or is no classifier.
    """
    model = load(case.model, weights=case.weights) if case.trained else untrained(case.model, seed)
    preprocess = model.preprocess
    if case.size is not None:
        preprocess = replace(preprocess, resize=case.size, crop=case.size)
    if case.image is not None:
        pixels, _ = preprocess(Photo.read(case.image))
        x = torch.stack([pixels] * case.batch)
    else:
        shape = (case.batch, len(preprocess.mean), *preprocess.size)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    dtype: torch.dtype = getattr(torch, case.dtype)
    with usable(case.device):
        module, x = model.module.to(case.device, dtype), x.to(case.device, dtype)
    try:
        with torch.no_grad():
            logits = module(x)
    except Exception as error:
        reason = first_line(error)
        raise InputError(f"{case.model} takes no images {tuple(x.shape)}: {reason}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise InputError(f"{case.model} is no classifier: its output is not (N, classes).")
    return Task(module, x, logits.argmax(1))
