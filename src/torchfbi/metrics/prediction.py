"""What the network says of altered images, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from torchfbi.errors import InputError, SettingsError, TargetError
from torchfbi.metrics.checks import checked_maps

Predict: TypeAlias = Callable[[Tensor], Tensor]
"""From images (M, C, H, W) to the probabilities of the classes (M, classes)."""


def checked_sample(x: Tensor, target: Tensor, maps: Tensor, signed: bool = False) -> Tensor:
    """The maps of the images, as ``checked_maps`` gives them.

    Raises:
        InputError: images, targets and maps that do not belong together.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(f"the images are {x.dtype} {tuple(x.shape)}, not floats (N, C, H, W).")
    if target.shape != x.shape[:1] or target.dtype != torch.int64:
        raise InputError(
            f"the target is {target.dtype} {tuple(target.shape)}: give one class number for each "
            f"of the {len(x)} images, int64 (N,)."
        )
    values = checked_maps(maps, len(x), signed)
    if values.shape[1:] != x.shape[2:]:
        raise InputError(
            f"the maps are {tuple(values.shape[1:])}, the images {tuple(x.shape[2:])} pixels: "
            "enlarge the maps to the images' size."
        )
    return values


def target_scores(
    predict: Predict,
    target: Tensor,
    variants: int,
    alter: Callable[[Tensor, Tensor], Tensor],
    chunk: int,
    rivals: Tensor | None = None,
) -> Tensor:
    """The target's output for each variant of each sample.

    Args:
        predict: the network.
        target: (N,) int64.
        variants: how many there are of each sample.
        alter: from numbers of samples and numbers of variants, (M,) each, to images (M, C, H, W).
        chunk: the largest M.
        rivals: (N,) int64, classes whose output is taken away from the target's; or None.

    Returns:
        (N, variants) float64.

    Raises:
        InputError: ``predict`` does not answer (M, classes).
        SettingsError: a chunk of no image.
        TargetError: no such class.
    """
    if chunk < 1:
        raise SettingsError(f"chunk={chunk}: at least one image has to be predicted at a time.")
    target = target.cpu()
    rivals = None if rivals is None else rivals.cpu()
    sample = torch.arange(len(target)).repeat(variants)
    variant = torch.arange(variants).repeat_interleave(len(target))
    found = [torch.zeros(0, dtype=torch.float64)]
    with torch.no_grad():
        for part in torch.split(torch.stack([sample, variant]), chunk, dim=1):
            samples, numbers = part
            if len(samples):
                answer = predict(alter(samples, numbers)).cpu().double()
                score = _of_target(answer, target[samples])
                if rivals is not None:
                    score = score - _of_target(answer, rivals[samples])
                found.append(score)
    return torch.cat(found).view(variants, len(target)).T


def _of_target(answer: Tensor, target: Tensor) -> Tensor:
    if answer.ndim != 2 or len(answer) != len(target):
        raise InputError(
            f"predict answered {tuple(answer.shape)} to {len(target)} images: it must give the "
            "probabilities (M, classes)."
        )
    if not ((target >= 0) & (target < answer.shape[1])).all():
        raise TargetError(f"a target is none of the {answer.shape[1]} classes: 0 is the first.")
    return answer.gather(1, target[:, None])[:, 0]
