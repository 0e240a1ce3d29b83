"""What a measurement may ask for: one method on one batch of scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn

from torchfbi import metrics
from torchfbi.errors import InputError
from torchfbi.evaluate import peers
from torchfbi.evaluate.benchmark import Batch, Suite
from torchfbi.evaluate.peers import Method
from torchfbi.evaluate.peers.network import graph_of
from torchfbi.explanation.predict import graph_now, network_of
from torchfbi.method import heads
from torchfbi.method.graph import Graph
from torchfbi.metrics import Curves
from torchfbi.metrics.removal import Kind, Remove

PATCHES = 28
"""Square patches along the shorter side: 8 pixels of 224."""

Units: TypeAlias = Literal["patches"] | int
"""``"patches"``, or a number of superpixels."""

T = TypeVar("T")


class CurveKey(NamedTuple):
    """Which curves: by what is removed at once, and what takes its place."""

    units: Units
    kind: Kind


@dataclass(frozen=True, eq=False)
class Subject:
    """A suite with its network, and what is drawn at random once for all methods.

    Args:
        suite: the scenes and their network.
        seed: of all that is random.
    """

    suite: Suite
    seed: int = 0
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self.suite.model.module

    def predict(self, images: Tensor) -> Tensor:
        """The probabilities (M, classes) for images (M, C, H, W)."""
        return heads.probabilities(self.logits(images), self._graph(images).head)

    def logits(self, images: Tensor) -> Tensor:
        """The logits (M, classes) for images (M, C, H, W)."""
        graph = self._graph(images)
        network = network_of(graph, images.device)
        parts = torch.split(images, len(images) if graph.batch is None else graph.batch)
        return torch.cat([network(part) for part in parts])

    def _graph(self, images: Tensor) -> Graph:
        def of_now() -> Graph:
            graph_now(self.module, images[:1])
            return graph_of(self.module, images[:1])

        return self.once(("graph", images.shape[1:]), of_now)

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once for each key."""
        if key not in self._made:
            self._made[key] = make()
        return cast(T, self._made[key])

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
    _curves: dict[tuple[CurveKey, int], Curves] = field(default_factory=dict, repr=False)

    @property
    def mask(self) -> Tensor:
        """The objects, (N, H, W) bool; only for metrics that need them."""
        return cast(Tensor, self.batch.mask)

    @property
    def cell(self) -> Tensor:
        """The cells of the grid, (N, H, W) bool; only for metrics that need them."""
        return cast(Tensor, self.batch.cell)

    @cached_property
    def maps(self) -> Tensor:
        """The method's maps of the batch's targets, (N, H, W) float32 >= 0."""
        return self.scores.relu()

    @cached_property
    def scores(self) -> Tensor:
        """What pixels are ordered by, (N, H, W) float32; ``maps`` is its positive part."""
        return self.explain()

    @cached_property
    def then(self) -> Tensor | None:
        """The order of what the method leaves at zero, (N, H, W), or None."""
        if self.method.then is None or self.scores.ne(0).all():
            return None
        whole = replace(self.method, attribute=self.method.then, then=None)
        return self._explained_by(whole, self.subject.module, self.batch.x, self.batch.target)

    def explain(
        self, target: Tensor | None = None, module: nn.Module | None = None, x: Tensor | None = None
    ) -> Tensor:
        """The method's scores for other classes, another network or other images, (N, H, W)."""
        return self._explained_by(
            self.method,
            self.subject.module if module is None else module,
            self.batch.x if x is None else x,
            self.batch.target if target is None else target,
        )

    def _explained_by(self, method: Method, module: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return peers.scores(method, module, x, target, self.subject.seed)

    def curves(self, units: Units, kind: Kind, steps: int) -> Curves:
        """See ``metrics.gain_curves``; computed once."""
        key = CurveKey(units, kind)
        if (key, steps) not in self._curves:
            self._curves[key, steps] = metrics.gain_curves(
                self.subject.predict,
                self.batch.x,
                self.batch.target,
                self.scores,
                self.units(units),
                self.removal(kind),
                then=self.then,
                steps=steps,
                seed=self.subject.seed,
            )
        return self._curves[key, steps]

    def plotted(self) -> dict[str, Curves]:
        """The curves by patches that were computed, by what took the place of removed ones."""
        return {key.kind: c for (key, _), c in self._curves.items() if key.units == "patches"}

    def contrastive_gain(self, steps: int) -> Tensor:
        """The class-contrastive gain by blurring patches, (N,)."""
        return metrics.symmetric_relevance_gain(
            self.subject.logits,
            self.batch.x,
            self.batch.target,
            self.scores,
            self.units("patches"),
            self.removal("blur"),
            then=self.then,
            rivals=self.batch.rival,
            steps=steps,
            seed=self.subject.seed,
        )

    def removal(self, kind: Kind) -> Remove:
        """What takes the place of removed pixels; made once for all methods."""

        def make() -> Remove:
            return metrics.removal(self.batch.x, kind, self.subject.seed)

        return self.subject.once((self.batch.indices, kind), make)

    def units(self, units: Units) -> Tensor:
        """The partitions of the batch's images, (N, H, W) or (H, W); made once for all methods."""
        height, width = self.batch.x.shape[2:]

        def make() -> Tensor:
            if units == "patches":
                return metrics.patches(height, width, max(1, min(height, width) // PATCHES))
            scenes = [self.subject.suite.scenes[i] for i in self.batch.indices]
            return torch.stack([metrics.superpixels(scene.picture, units) for scene in scenes])

        return self.subject.once((self.batch.indices, units), make)
