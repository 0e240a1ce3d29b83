"""Whether an exported explainer says what the eager one says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.errors import ExportError
from torchfbi.export.explainer import TOP_CLASS, Answer, Explainer, Question
from torchfbi.export.formats import Run
from torchfbi.settings import Settings
from torchfbi.walk import ForwardBackward

TOLERANCE = 1e-4

ROUNDING = 2e-7
"""By this share a picture's entries are moved, a rounding or two of float32."""

TRIES = 16


class Agreement(NamedTuple):
    """How far two explainers were apart on the images that they were compared on.

    Args:
        samples: how many explanations were compared.
        rounded: for how many of these the support was identical only to that of the image moved
            by rounding; for the others to that of the image itself.
        logits: the mean difference, as a share of a sample's mean |logit|; of the worst sample.
        values: the same of its values. Not of the largest: an activation that is zero but for
            rounding lets its signal pass or not, which moves the few values around it.
        density: the mean share of the pixels in their supports; 0 proves little.
    """

    samples: int
    rounded: int
    logits: float
    values: float
    density: float


def verify(run: Run, walker: ForwardBackward, images: Tensor) -> Agreement:
    """Compare an exported explainer with the eager one.

    All images are explained at once, for a different class each; then, where the batch is free,
    the first one alone, with half the maps and a lower threshold. Thresholds come in steps, so
    that one rounding may move a support: what counts is that the exported explainer says what
    the eager one says, of the image or of the image moved by rounding.

    Raises:
        ExportError: a support differs in a single pixel from all of these, or logits or values
            differ by more than ``TOLERANCE`` in the mean.
    """
    found: list[tuple[int, float, float, float]] = []
    for question in _questions(walker, images):
        answers = Answer(*(tensor.to(images.device) for tensor in run(question)))
        found += [
            _compare(walker, _sample(question, i), Answer(*(t[i : i + 1] for t in answers)))
            for i in range(len(question.image))
        ]
    rounded, logits, values, densities = zip(*found, strict=True)
    for name, difference in (("logits", max(logits)), ("values", max(values))):
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported explainer's {name} differ from the eager one's by "
                f"{difference:.1e} in the mean, more than {TOLERANCE:g}, so nothing was written."
            )
    density = sum(densities) / len(found)
    return Agreement(len(found), sum(rounded), max(logits), max(values), density)


def eager_answers(walker: ForwardBackward, question: Question) -> Iterator[Answer]:
    """What the eager explainer says: of the image, then of the image moved by rounding."""
    eager, image = Explainer(walker), question.image
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        yield Answer(*eager(**question.named()))
        for _ in range(TRIES):
            noise = ROUNDING * torch.randn(image.shape, generator=random).to(image)
            moved = question._replace(image=image * (1 + noise))
            yield Answer(*eager(**moved.named()))


def _compare(
    walker: ForwardBackward, question: Question, found: Answer
) -> tuple[int, float, float, float]:
    """Of one sample: whether rounding was needed, the differences, and the support's density."""
    fewest = found.support.numel()
    for tries, expected in enumerate(eager_answers(walker, question)):
        differing = int((found.support != expected.support).sum())
        fewest = min(fewest, differing)
        if not differing:
            logits = _difference(found.logits, expected.logits)
            values = _difference(found.values, expected.values)
            if values <= TOLERANCE or not tries:
                return int(tries > 0), logits, values, found.support.float().mean().item()
    raise ExportError(
        f"the exported explainer's support differs from the eager one's in {fewest} of "
        f"{found.support.numel()} pixels, so nothing was written. Verify it on other images, or "
        "report it with the model."
    )


def _sample(question: Question, i: int) -> Question:
    image, target = question.image[i : i + 1], question.target[i : i + 1]
    return question._replace(image=image, target=target)


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
