"""The study of the paper's section 3 as a grid: how k and tau shape the support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchfbi.api import AnyTarget, explain
from torchfbi.errors import InputError, SettingsError, TargetError
from torchfbi.explanation.explanation import Explanation
from torchfbi.explanation.reuse import Forwards
from torchfbi.method.settings import Settings
from torchfbi.models import Model, load
from torchfbi.models.images import Photo
from torchfbi.verification.blur import blur

_CHUNK = 8  # altered images in one forward pass


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """One image explained with every share k and every tau, and what the supports are worth.

    Rows are ``ks``, columns ``taus``. "Blurred" is the image after a Gaussian blur of
    ``sigma`` pixels, which removes the detail and keeps the colours.

    Args:
        ks: the shares of feature maps that went on, as given.
        taus: the thresholds, as given; None keeps everything.
        explanations: one a cell, ``explanations[row][column]``, each of one sample.
        target: the probed class, the same in all cells.
        density: the support's share of the pixels, (rows, columns) float in [0, 1].
        kept: the target's probability for the image that is sharp on the support and blurred
            elsewhere, (rows, columns) float. High: the support alone suffices.
        removed: the target's probability for the image that is blurred on the support and
            sharp elsewhere, (rows, columns) float. Low: the support is needed.
        probability: the target's probability for the image itself.
        blurred: the target's probability for the wholly blurred image: ``kept`` of an empty
            support.
        sigma: the blur's standard deviation in pixels of the network's input.
    """

    ks: tuple[float, ...]
    taus: tuple[float | None, ...]
    explanations: tuple[tuple[Explanation, ...], ...]
    target: int
    density: Tensor
    kept: Tensor
    removed: Tensor
    probability: float
    blurred: float
    sigma: float

    def to_dict(self) -> dict[str, Any]:
        """Everything but the explanations, as plain JSON values."""
        first = self.explanations[0][0]
        return {
            "model": first.model,
            "target": self.target,
            "label": first.label(self.target),
            "settings": first.settings.to_dict(),
            "probability": self.probability,
            "blurred": self.blurred,
            "sigma": self.sigma,
            "cells": [
                {
                    "k": k,
                    "tau": tau,
                    "density": self.density[row, column].item(),
                    "kept": self.kept[row, column].item(),
                    "removed": self.removed[row, column].item(),
                }
                for row, k in enumerate(self.ks)
                for column, tau in enumerate(self.taus)
            ],
        }

    def __repr__(self) -> str:
        title = self.explanations[0][0].title()
        return f"Sweep({title}: {len(self.ks)} shares k x {len(self.taus)} thresholds tau)"


def sweep(
    model: str | Model | nn.Module,
    image: Any,
    *,
    ks: Sequence[float],
    taus: Sequence[float | None],
    target: AnyTarget = None,
    settings: Settings | str | None = None,
) -> Sweep:
    """Explain one image with every k and every tau.

    >>> grid = sweep("efficientnet-lite0", "cat.jpg", ks=[0.1, 0.5, 1.0], taus=[0, 1, 10])

    Args:
        model: as for ``explain``.
        image: one photo, for a ``Model``; or a tensor (1, C, H, W).
        ks: shares of the feature maps, in (0, 1].
        taus: thresholds, the paper's tau >= 0; None keeps everything.
        target: as for ``explain``; it must name a class.
        settings: everything else; the paper's preset by default.

    Raises:
        SettingsError: an empty list, or a number out of range.
        InputError: a tensor that does not hold exactly one image.
        TargetError: no such class, or a function that gives a seed.
        ImageError, CaptureError, ModelError: as for ``explain``.
    """
    if isinstance(model, str):
        model = load(model)
    if settings is None or isinstance(settings, str):
        settings = Settings.from_preset(settings or "paper")
    if not ks:
        raise SettingsError("ks is empty: give at least one share of the feature maps.")
    if not taus:
        raise SettingsError("taus is empty: give at least one threshold.")
    grid = [[settings.override(k=k, tau=tau) for tau in taus] for k in ks]
    x, image = _input(model, image)
    if x.ndim != 4 or len(x) != 1:
        raise InputError(f"the image has shape {tuple(x.shape)}: a sweep takes (1, C, H, W).")
    forwards = Forwards(stays=True)  # the cells differ in the walk alone
    rows = tuple(
        tuple(explain(model, image, target, cell, forwards=forwards) for cell in row)
        for row in grid
    )
    probed = rows[0][0].target
    if probed is None:
        raise TargetError("a sweep follows the probability of one class: the target must name it.")
    number, sigma = int(probed), min(x.shape[-2:]) / 16
    blurred = blur(x, sigma)
    supports = torch.cat([cell.support for row in rows for cell in row])[:, None]
    altered = [torch.where(supports, x, blurred), torch.where(supports, blurred, x), blurred]
    probabilities = _probabilities(model, torch.cat(altered), number)
    shape, cells = (len(grid), len(taus)), len(supports)
    return Sweep(
        ks=tuple(ks),
        taus=tuple(taus),
        explanations=rows,
        target=number,
        density=torch.cat([cell.density for row in rows for cell in row]).reshape(shape),
        kept=probabilities[:cells].reshape(shape),
        removed=probabilities[cells:-1].reshape(shape),
        probability=rows[0][0].probabilities[0, number].item(),
        blurred=probabilities[-1].item(),
        sigma=sigma,
    )


def _input(model: Model | nn.Module, image: Any) -> tuple[Tensor, Tensor | Photo]:
    """The tensor that the network sees, and what ``explain`` is to be given."""
    if isinstance(image, Tensor):
        return image, image
    if not isinstance(model, Model):
        raise InputError("a bare nn.Module takes a tensor (1, C, H, W), not a photo.")
    photo = image if isinstance(image, Photo) else Photo.read(image)
    return model.placed(model.preprocess(photo)[0][None]), photo


def _probabilities(model: Model | nn.Module, images: Tensor, target: int) -> Tensor:
    """The target's probability for each image, (N,).

    The bare adjoint costs little, and unlike the module itself an explanation has the logits
    before a softmax that the network may end in.
    """
    plain = Settings.plain()
    chunks = [explain(model, chunk, target, plain) for chunk in torch.split(images, _CHUNK)]
    return torch.cat([chunk.probabilities[:, target] for chunk in chunks])
