"""What a benchmark asks of a network: its input from a picture, its probabilities for inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchfbi.capture.capture import capture
from torchfbi.errors import CaptureError, InputError, SettingsError, TrainingModeError
from torchfbi.method import heads
from torchfbi.method.heads import Head
from torchfbi.models import Model
from torchfbi.models.images import Photo

RECOGNISED = 0.5
"""Above this probability a network has recognised an object."""

CHUNK = 8
"""Images in one forward pass."""


def check(model: Model, count: int, seed: int) -> None:
    """Refuse what no scene can be made for.

    Raises:
        SettingsError: a count below 1 or a negative seed.
        TrainingModeError: asking the network would change it.
    """
    if count < 1 or seed < 0:
        raise SettingsError(f"count={count} must be at least 1, seed={seed} at least 0.")
    if any(part.training for part in model.module.modules()):
        raise TrainingModeError(
            f"{model.name} is in training mode, where asking it changes it: call .eval() first."
        )


def prepare(model: Model, picture: npt.NDArray[np.uint8]) -> Tensor:
    """A picture as the network takes it, pixel by pixel: neither resized nor cropped.

    Args:
        model: whose channels, mean, std, dtype and device count.
        picture: (H, W, 3), RGB.

    Returns:
        (C, H, W).
    """
    as_it_is = replace(model.preprocess, crop=picture.shape[:2], fit="stretch")
    return model.placed(as_it_is(Photo(picture))[0])


def probabilities(model: Model, images: Sequence[Tensor]) -> Tensor:
    """The network's probabilities; a softmax or sigmoid that it ends in is not applied again.

    Args:
        model: in evaluation mode.
        images: (C, H, W), of one size.

    Returns:
        (N, classes) float32, on the CPU.

    Raises:
        InputError: its output is not (N, classes).
    """
    found = []
    with torch.no_grad():
        for start in range(0, len(images), CHUNK):
            answer = model.module(torch.stack(list(images[start : start + CHUNK])))
            if not isinstance(answer, Tensor) or answer.ndim != 2:
                raise InputError(f"{model.name} is no classifier: its output is not (N, classes).")
            found.append(answer.float().cpu())
    outputs = torch.cat(found)
    total = outputs.sum(1)
    if outputs.min() < 0 or outputs.max() > 1:
        return heads.probabilities(outputs, None)
    if torch.allclose(total, torch.ones_like(total), atol=1e-3):
        return outputs
    head = _head(model, images[0])
    return outputs if head == "sigmoid" else heads.probabilities(outputs, head)


def _head(model: Model, x: Tensor) -> Head | None:
    """What stands behind the network's logits; None where it cannot be captured."""
    try:
        return capture(model.module, x[None]).head
    except CaptureError:
        return None


def takes(model: Model, size: tuple[int, int]) -> bool:
    """Whether the network answers images of this (height, width) as it answers its usual ones."""
    usual = prepare(model, np.zeros((*model.preprocess.size, 3), np.uint8))
    classes = probabilities(model, [usual]).shape
    try:
        return probabilities(model, [usual.new_zeros(len(usual), *size)]).shape == classes
    except Exception:  # a network's own code refuses a size in any way it likes
        return False
