"""Whether an exported explainer says what the eager one says."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.errors import ExportError
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.export.explainer import TOP_CLASS, Explainer, Inputs, Outputs
from torchfbi.export.formats import Run
from torchfbi.method.settings import Settings

EDGE = 1e-3
"""Of the pixels, in which supports of evidence may differ."""
TOLERANCE = 1e-4
"""In float32 and wider; in half precision it is ten of its roundings."""

ROUNDING = 1e-6
"""By this share the entries of an image are moved: a few roundings of float32, or one of half
precision."""

TRIES = 16


class Difference(NamedTuple):
    """How far two explanations of one sample are apart.

    Args:
        pixels: in how many pixels the supports differ.
        logits: the mean difference, as a share of the mean |logit|.
        values: the same of the values. Not of the largest: an activation that is zero but for
            rounding lets its signal pass or not, which moves the few values around it.
        tolerance: of the two shares, for the dtype that was computed in.
        edge: in how many pixels supports may differ: one that holds a share of the evidence ends
            at some pixel, and among those that nearly tie with it rounding chooses.
    """

    pixels: int
    logits: float
    values: float
    tolerance: float = TOLERANCE
    edge: int = 0

    @property
    def exact(self) -> bool:
        """Whether the supports are identical but for their edge, and the rest agrees to the
        tolerance."""
        return self.pixels <= self.edge and max(self.logits, self.values) <= self.tolerance

    def within(self, other: Difference) -> bool:
        """Whether the other one is as large."""
        return (
            self.pixels <= other.pixels
            and self.logits <= max(other.logits, self.tolerance)
            and self.values <= max(other.values, self.tolerance)
        )


class Agreement(NamedTuple):
    """How far two explainers were apart on the images that they were compared on.

    Args:
        samples: how many explanations were compared.
        exact: for how many the supports were identical and logits and values within
            the tolerance. The others differ no more than the eager explainer itself does once
            the image is moved by ``ROUNDING``.
        pixels: in how many pixels at most the supports of those others differ.
        logits: the largest difference of the exact ones' logits; see ``Difference``.
        values: the largest difference of the exact ones' values.
        density: the mean share of the pixels in the supports; 0 proves little.
    """

    samples: int
    exact: int
    pixels: int
    logits: float
    values: float
    density: float


def verify(
    run: Run,
    walker: ForwardBackward,
    images: Tensor,
    batch: int | None = None,
    others: Mapping[str, Tensor] = MappingProxyType({}),
) -> Agreement:
    """Compare an exported explainer with the eager one.

    All images are explained at once, for a different class each; then as many as the batch has,
    or the first one alone where it is free, with fewer maps and a lower tau where they
    are inputs.

    Args:
        run: the exported explainer.
        walker: the eager one.
        images: (N, C, ...), as many as the batch where it is fixed.
        batch: its size where it is fixed.
        others: further inputs, as in ``Inputs``.

    Raises:
        ExportError: an explanation differs by more than rounding accounts for, or all of them
            differ.
    """
    found: list[Difference] = []
    densities: list[float] = []
    for question in _questions(walker, images, batch, others):
        answers = Outputs(*(tensor.to(images.device) for tensor in run(question)))
        for i in range(len(question.image)):
            answer = Outputs(*(tensor[i : i + 1] for tensor in answers))
            found.append(compare(walker, question.part(slice(i, i + 1)), answer))
            densities.append(answer.support.float().mean().item())
    exact = [difference for difference in found if difference.exact]
    if not exact:
        raise ExportError(_refusal(found[0]))
    return Agreement(
        samples=len(found),
        exact=len(exact),
        pixels=max(difference.pixels for difference in found),
        logits=max(difference.logits for difference in exact),
        values=max(difference.values for difference in exact),
        density=sum(densities) / len(densities),
    )


class Loss(NamedTuple):
    """What a file loses by rounded weights, at worst, on the images that it was tried on.

    Args:
        probability: by how much that of a class changes at most.
        overlap: what two supports share at least, as a part of what either holds.
    """

    probability: float
    overlap: float

    @property
    def small(self) -> bool:
        """Whether nobody would see it."""
        return self.probability <= 1e-3 and self.overlap >= 0.99


def loss(run: Run, walker: ForwardBackward, images: Tensor) -> Loss:
    """What an exported explainer with rounded weights loses against the eager one.

    Args:
        run: the exported explainer.
        walker: the eager one.
        images: (N, C, ...), each explained alone, for its most probable class.
    """
    eager, moved, shared = Explainer(walker), [], []
    for image in images[:, None]:
        target = torch.full((1,), TOP_CLASS, device=image.device)
        question = Inputs.of(image, target, walker.settings)
        with torch.no_grad():
            expected = Outputs(*eager(**question.named()))
        found = Outputs(*(tensor.to(image.device) for tensor in run(question)))
        moved.append((found.logits.softmax(1) - expected.logits.softmax(1)).abs().max())
        both, either = found.support & expected.support, found.support | expected.support
        shared.append((both.sum() / either.sum()).item() if either.any() else 1.0)
    return Loss(torch.stack(moved).max().item(), min(shared))  # of which NaN is the largest


def compare(walker: ForwardBackward, question: Inputs, found: Outputs) -> Difference:
    """Compare an answer to a question about one sample with the eager one.

    Thresholds come in steps, and activations pass or do not, so that one rounding, which every
    runtime does in its own way, can move a support. A difference counts as rounding where the
    eager explainer's own answer differs as much once the image is moved by ``ROUNDING``.

    Raises:
        ExportError: it differs by more.
    """
    eager, image = Explainer(walker), question.image
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        expected = Outputs(*eager(**question.named()))
        edge = round(EDGE * expected.support.numel())
        edge = edge if walker.settings.values == "evidence" else 0
        difference = _difference(found, expected)._replace(edge=edge)
        for _ in range(0 if difference.exact else TRIES):
            noise = _rounding(image.dtype) * torch.randn(image.shape, generator=random).to(image)
            moved = question._replace(image=image * (1 + noise))
            own = _difference(Outputs(*eager(**moved.named())), expected)
            if difference.within(own):
                return difference
    if not difference.exact:
        raise ExportError(_refusal(difference))
    return difference


def _refusal(difference: Difference) -> str:
    return (
        f"the exported explainer differs from the eager one: its support in {difference.pixels} "
        f"pixels, its logits by {difference.logits:.1e} and its values by {difference.values:.1e} "
        f"in the mean, of {difference.tolerance:g} allowed. Nothing was written: verify it on "
        "other images, or report it with the model."
    )


def _difference(found: Outputs, expected: Outputs) -> Difference:
    def share(found: Tensor, expected: Tensor) -> float:
        scale = expected.abs().mean().clamp(min=torch.finfo(expected.dtype).tiny)
        return ((found - expected).abs().mean() / scale).item()

    pixels = int((found.support != expected.support).sum())
    logits, values = (share(found[i], expected[i]) for i in range(2))
    dtype = expected.values.dtype
    tolerance = 10 * torch.finfo(dtype).eps if dtype.itemsize < 4 else TOLERANCE
    return Difference(pixels, logits, values, tolerance)


def _rounding(dtype: torch.dtype) -> float:
    return max(ROUNDING, torch.finfo(dtype).eps)


def _questions(
    walker: ForwardBackward, images: Tensor, batch: int | None, others: Mapping[str, Tensor]
) -> list[Inputs]:
    settings = walker.settings
    last = walker.graph.logits.meta["val"].shape[1] - 1
    asked = torch.tensor([TOP_CLASS, last, 0], device=images.device)
    targets = asked[torch.arange(len(images), device=images.device) % len(asked)]
    return [
        Inputs.of(images, targets, settings, others),
        Inputs.of(images, targets, _changed(settings), others).part(slice(batch or 1)),
    ]


def _changed(settings: Settings) -> Settings:
    """Other numbers where they are inputs."""
    lower = None if settings.tau is None else 0.9 * settings.tau
    return settings.override(k=settings.k if settings.k == 1 else 0.6 * settings.k, tau=lower)
