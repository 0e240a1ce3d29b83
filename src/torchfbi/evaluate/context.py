"""What a measurement may ask for: one method on one batch of scenes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, cast

import torch
from torch import Tensor, nn

from torchfbi import metrics, peers
from torchfbi.benchmark import Batch, Suite
from torchfbi.benchmark.asking import probabilities
from torchfbi.errors import InputError
from torchfbi.metrics.prediction import Predict
from torchfbi.peers import Method


@dataclass(frozen=True, eq=False)
class Subject:
    """A suite with its network, and what is drawn at random once for all methods.

    Args:
        suite: the scenes and their network.
        seed: of all that is random.
    """

    suite: Suite
    seed: int = 0

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self.suite.model.module

    def predict(self, images: Tensor) -> Tensor:
        """The probabilities (M, classes) for images (M, C, H, W)."""
        return probabilities(self.suite.model, list(images))

    @cached_property
    def rivals(self) -> Tensor:
        """For each scene a random class other than its target, (scenes,) int64.

        Raises:
            InputError: the network has only one class.
        """
        targets = torch.tensor([scene.target for scene in self.suite.scenes])
        classes = self.predict(self.suite.scenes[0].x[None]).shape[1]
        if classes < 2:
            raise InputError("the network has a single class: there is no other to compare with.")
        generator = torch.Generator().manual_seed(self.seed)
        steps = torch.randint(1, classes, targets.shape, generator=generator)
        return (targets + steps) % classes

    @cached_property
    def random_head(self) -> nn.Module:
        """The network with a random last layer."""
        return metrics.randomise_head(self.module, self.seed)


@dataclass(frozen=True, eq=False)
class Context:
    """One method on one batch.

    Args:
        subject: the suite that the batch is from.
        method: whose maps are judged.
        batch: scenes of one kind, stacked.
    """

    subject: Subject
    method: Method
    batch: Batch
    _curves: dict[tuple[str, float | None], Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def maps(self) -> Tensor:
        """The method's maps of the batch's targets, (N, H, W) float32 >= 0."""
        return self.explain()

    @property
    def mask(self) -> Tensor:
        """The objects, (N, H, W) bool; only for metrics that need them."""
        return cast(Tensor, self.batch.mask)

    @property
    def cell(self) -> Tensor:
        """The cells of the grid, (N, H, W) bool; only for metrics that need them."""
        return cast(Tensor, self.batch.cell)

    def explain(
        self,
        x: Tensor | None = None,
        target: Tensor | None = None,
        module: nn.Module | None = None,
    ) -> Tensor:
        """The method's maps for other images, classes or another network, (N, H, W)."""
        return peers.maps(
            self.method,
            self.subject.module if module is None else module,
            self.batch.x if x is None else x,
            self.batch.target if target is None else target,
            self.subject.seed,
        )

    def curve(self, kind: Literal["insertion", "deletion"], area: float | None) -> Tensor:
        """See ``metrics.insertion`` and ``metrics.deletion``, (N,); computed once."""
        if (kind, area) not in self._curves:
            measure = metrics.insertion if kind == "insertion" else metrics.deletion
            found = measure(*self.question, area=area, seed=self.subject.seed)
            self._curves[kind, area] = found
        return self._curves[kind, area]

    @property
    def question(self) -> tuple[Predict, Tensor, Tensor, Tensor]:
        """What metrics of altered images take first: predict, x, target, maps."""
        return self.subject.predict, self.batch.x, self.batch.target, self.maps
