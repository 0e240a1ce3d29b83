"""What an explainer takes: images of its size."""

from __future__ import annotations

import torch
from torch import Tensor

from torchfbi.errors import InputError, NonFiniteError


def check_images(x: Tensor, sizes: tuple[int, ...], like: Tensor, batch: int | None) -> None:
    """Refuse images that the explainer was not made for.

    Args:
        x: the images.
        sizes: what each must measure, (C, ...).
        like: a tensor of the network's dtype and device.
        batch: how many there must be; None for any number.

    Raises:
        InputError: wrong sizes, dtype, device or number.
    """
    if tuple(x.shape[1:]) != sizes:
        raise InputError(
            f"the input has shape {tuple(x.shape)}, but this explainer was made for "
            f"(N, {', '.join(map(str, sizes))}): make another one for this size."
        )
    if (x.dtype, x.device) != (like.dtype, like.device):
        raise InputError(
            f"the input is {x.dtype} on {x.device}, the network {like.dtype} on "
            f"{like.device}: convert one of them with .to()."
        )
    if batch is not None and x.shape[0] != batch:
        raise InputError(
            f"this network's code fixes the batch size to {batch}, "
            f"but the input holds {x.shape[0]} samples."
        )


def check_values(x: Tensor) -> None:
    """Refuse images that hold what is no number.

    Raises:
        NonFiniteError: NaN or infinity among them.
    """
    if not torch.isfinite(x).all():
        raise NonFiniteError("the input contains NaN or infinite values.")


def check_walks(walks: int, x: Tensor) -> None:
    """Refuse several targets for each of several images.

    Raises:
        InputError: there is not one image, and more than one walk.
    """
    if walks < 1 or (walks > 1 and len(x) != 1):
        raise InputError(
            f"walks={walks} walks back that often from one image, and there are {len(x)}: give "
            "each image alone, or one target for each."
        )
