"""What the network says of an image of which only a part is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from torchfbi.errors import InputError, NonFiniteError, TargetError
from torchfbi.verification.blur import blur
from torchfbi.verification.grid import Grid

Predict: TypeAlias = Callable[[Tensor], Tensor]
"""From images (M, C, ...) to the probabilities of the classes (M, classes)."""

BLUR = 10 / 224
"""The blur's standard deviation, in sides of the image: 10 of 224 pixels."""

AT_ONCE = 8 * 224 * 224
"""Pixels in one forward pass, of one image at least."""

REMOVALS = ("blur", "mean")
"""What takes the place of what is removed: the image after a Gaussian blur, which leaves colours
and no detail; or the image's mean colour, which leaves nothing and draws an edge around what
stays. Each has its own faults, so a part counts where it does under both."""


class Prediction(NamedTuple):
    """What the network says, for each altered image (M,) and each removal.

    Args:
        probability: of the class, (removals, M) float64; NaN where that was not asked.
        margin: how far the class is from being lost, (removals, M) float64 in nats; it is kept
            above 0. NaN where that was not asked.
    """

    probability: Tensor
    margin: Tensor

    @property
    def kept(self) -> Tensor:
        """Whether the class is kept under every removal, (M,) bool."""
        return (self.margin > 0).all(0)

    @property
    def lost(self) -> Tensor:
        """Whether the class is lost under every removal, (M,) bool."""
        return (self.margin <= 0).all(0)

    def at(self, indices: Tensor) -> Prediction:
        """Some of the altered images, in this order."""
        return Prediction(self.probability[:, indices], self.margin[:, indices])

    def one(self, index: int) -> Prediction:
        """One of the altered images, still with a dimension of its own."""
        return self.at(torch.tensor([index]))


def joined(*predictions: Prediction) -> Prediction:
    """Predictions under the same removals, one after the other."""
    return Prediction(*(torch.cat(parts, 1) for parts in zip(*predictions, strict=True)))


class Occlusion:
    """One image, one class, and a network that can be asked about its parts.

    The class is *kept* where it is the network's answer. A class that is not the answer to the
    whole image is kept where it is as probable as there.

    Args:
        predict: the network.
        image: (1, C, ...) floating point.
        target: the class.
        exclusive: whether exactly one class is the answer, the most probable one. Otherwise, as
            behind a sigmoid, every class above one half is.

    Raises:
        InputError: ``predict`` does not answer (M, classes). NonFiniteError: it answers NaN.
        TargetError: no such class.
    """

    def __init__(
        self, predict: Predict, image: Tensor, target: int, *, exclusive: bool = True
    ) -> None:
        self._predict, self.image, self.target = predict, image, target
        self._exclusive = exclusive
        self.passes = 0
        self._level: float | None = None
        self.grid = Grid.of(tuple(image.shape[2:]))
        answers = self._answers(image)
        if not 0 <= target < answers.shape[1]:
            raise TargetError(f"the target is {target}, but there are {answers.shape[1]} classes.")
        self.probability = answers[0, target].item()
        self.is_answer = self._margins(answers).item() > 0
        if not self.is_answer:  # a hair below, so that the whole image itself keeps the class
            self._level = self._log(answers[:, target]).item() - 1e-9
        self._whole = self._margins(answers).item()
        self._filled = self._removed()

    @property
    def whole(self) -> Prediction:
        """What the network says of the whole image, the same under every removal; M = 1."""
        ones = torch.ones(len(self.removals), 1, dtype=torch.float64)
        return Prediction(ones * self.probability, ones * self._whole)

    @property
    def removals(self) -> tuple[str, ...]:
        """The removals that take the class away when everything is removed; without such a one
        nothing can be learnt from what is kept."""
        return tuple(self._filled)

    def keep(self, patches: Tensor, removals: tuple[str, ...] | None = None) -> Prediction:
        """Ask about the image with only some patches kept.

        Args:
            patches: (M, *grid.shape) bool.
            removals: a selection of ``self.removals``; all by default.
        """
        pixels = self.grid.pixels(patches)[:, None].to(self.image.device)
        filled = [self._filled[name] for name in (removals or self.removals)]
        altered = torch.cat([torch.where(pixels, self.image, other) for other in filled])
        answers = self._answers(altered)
        shape = len(filled), len(patches)
        return Prediction(answers[:, self.target].view(shape), self._margins(answers).view(shape))

    def keeping(
        self, patches: Tensor, removals: Sequence[str], most: int | None = None
    ) -> Prediction:
        """Which parts keep the class under every removal? Those that lose it under one are not
        asked about under the next.

        Args:
            patches: (M, *grid.shape) bool.
            removals: all of ``self.removals``; with the one first that loses the class soonest
                least is asked.
            most: how many parts go on to the next removal, the first ones; all by default.
        """
        return self._in_turn(patches, removals, torch.gt, most)

    def losing(self, patches: Tensor, removals: Sequence[str]) -> Prediction:
        """Which parts lose the class under every removal? Asked as ``keeping`` asks."""
        return self._in_turn(patches, removals, torch.le)

    def hardest(self, prediction: Prediction) -> tuple[str, ...]:
        """The removals, the one first under which a part, M = 1, is nearest to losing the class."""
        return tuple(self.removals[i] for i in prediction.margin[:, 0].argsort().tolist())

    def _in_turn(
        self,
        patches: Tensor,
        removals: Sequence[str],
        goes_on: Callable[[Tensor, float], Tensor],
        most: int | None = None,
    ) -> Prediction:
        shape = len(removals), len(patches)
        probability = torch.full(shape, torch.nan, dtype=torch.float64)
        margin = probability.clone()
        left = torch.arange(len(patches))
        for name in removals:
            if not len(left):
                break
            row, asked = self.removals.index(name), self.keep(patches[left], (name,))
            probability[row, left], margin[row, left] = asked.probability[0], asked.margin[0]
            left = left[goes_on(asked.margin[0], 0.0)][:most]
        return Prediction(probability, margin)

    def _removed(self) -> dict[str, Tensor]:
        """The image without anything of the class, one for each removal that achieves it.

        A blur that still shows the class is doubled, twice at most.
        """
        image, dimensions = self.image, tuple(range(2, self.image.ndim))
        side = prod(image.shape[2:]) ** (1 / len(dimensions))
        mean = image.mean(dimensions, keepdim=True).expand_as(image)
        self.sigma = BLUR * side
        blurred = blur(image, self.sigma)
        lost = self._margins(self._answers(torch.cat([blurred, mean]))) <= 0
        if not lost[0]:
            stronger = [blur(image, factor * self.sigma) for factor in (2, 4)]
            gone = self._margins(self._answers(torch.cat(stronger))) <= 0
            self.sigma *= 2 if gone[0] else 4
            blurred = stronger[0] if gone[0] else stronger[1]
            lost[0] = gone.any()
        filled = dict(zip(REMOVALS, (blurred, mean), strict=True))
        return {name: filled[name] for name, gone in zip(REMOVALS, lost, strict=True) if gone}

    def _answers(self, images: Tensor) -> Tensor:
        """(M, classes) float64, on the CPU."""
        found = []
        with torch.inference_mode():
            for part in torch.split(images, max(1, AT_ONCE // prod(images.shape[2:]))):
                answer = self._predict(part)
                if answer.ndim != 2 or len(answer) != len(part):
                    raise InputError(
                        f"predict answered {tuple(answer.shape)} to {len(part)} images: it must "
                        "give the probabilities (M, classes)."
                    )
                found.append(answer.double().cpu())
        self.passes += len(images)
        answers = torch.cat(found)
        if not torch.isfinite(answers).all():
            raise NonFiniteError("the network's answer to an altered image is NaN or infinite.")
        return answers

    def _margins(self, answers: Tensor) -> Tensor:
        """The logarithm of the class's probability over what it has to exceed, (M,)."""
        own = self._log(answers[:, self.target])
        if self._level is not None:
            return own - self._level
        if not self._exclusive:
            return own - self._log(1 - answers[:, self.target])
        rivals = answers.clone()
        rivals[:, self.target] = 0
        return own - self._log(rivals.amax(1))

    @staticmethod
    def _log(probabilities: Tensor) -> Tensor:
        return probabilities.clamp_min(torch.finfo(torch.float64).tiny).log()
