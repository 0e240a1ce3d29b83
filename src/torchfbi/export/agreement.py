"""Whether an exported explainer says what the eager one says."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.errors import ExportError
from torchfbi.export.explainer import TOP_CLASS, Answer, Explainer, Question
from torchfbi.export.formats import Run
from torchfbi.settings import Settings
from torchfbi.walk import ForwardBackward

TOLERANCE = 1e-4


class Agreement(NamedTuple):
    """How far two explainers were apart on the images that they were compared on.

    Args:
        samples: how many explanations were compared; their supports were identical.
        logits: the mean difference, as a share of a sample's mean |logit|; of the worst sample.
        values: the same of its values. Not of the largest: an activation that is zero but for
            rounding lets its signal pass or not, which moves the few values around it.
        density: the mean share of the pixels in their supports; 0 proves little.
    """

    samples: int
    logits: float
    values: float
    density: float


def verify(run: Run, walker: ForwardBackward, images: Tensor) -> Agreement:
    """Compare an exported explainer with the eager one.

    All images are explained at once, for a different class each; then, where the batch is free,
    the first one alone, with half the maps and a lower threshold.

    Raises:
        ExportError: a support differs in a single pixel, or logits or values differ by more
            than ``TOLERANCE`` in the mean.
    """
    logits, values, densities = 0.0, 0.0, list[Tensor]()
    eager = Explainer(walker)
    for question in _questions(walker, images):
        with torch.no_grad():
            expected = Answer(*eager(**question.named()))
        found = Answer(*(tensor.to(images.device) for tensor in run(question)))
        differing = int((found.support != expected.support).sum())
        if differing:
            total = expected.support.numel()
            raise ExportError(
                f"the exported explainer's support differs from the eager one's in {differing} "
                f"of {total} pixels, so nothing was written. Verify it on other images, or "
                "report it with the model."
            )
        densities.append(found.support.flatten(1).float().mean(1))
        logits = max(logits, _difference(found.logits, expected.logits))
        values = max(values, _difference(found.values, expected.values))
    for name, difference in (("logits", logits), ("values", values)):
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported explainer's {name} differ from the eager one's by "
                f"{difference:.1e} in the mean, more than {TOLERANCE:g}, so nothing was written."
            )
    density = torch.cat(densities)
    return Agreement(len(density), logits, values, density.mean().item())


def _questions(walker: ForwardBackward, images: Tensor) -> list[Question]:
    settings = walker.settings
    last = walker.graph.logits.meta["val"].shape[1] - 1
    asked = torch.tensor([TOP_CLASS, last, 0], device=images.device)
    targets = asked[torch.arange(len(images), device=images.device) % len(asked)]
    questions = [Question.of(images, targets, settings)]
    if walker.graph.batch is None:
        questions.append(Question.of(images[:1], targets[:1], _changed(settings)))
    return questions


def _changed(settings: Settings) -> Settings:
    threshold = settings.threshold
    lower = threshold and type(threshold)(threshold.kind, 0.9 * threshold.value)
    return settings.override(k=0.5, threshold=lower)


def _difference(found: Tensor, expected: Tensor) -> float:
    scale = expected.flatten(1).abs().mean(1).clamp(min=torch.finfo(expected.dtype).tiny)
    return ((found - expected).flatten(1).abs().mean(1) / scale).max().item()
