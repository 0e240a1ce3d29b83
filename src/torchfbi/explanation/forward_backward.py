"""``ForwardBackward``: a network, captured once, that explains its answers without autograd.

It decides who walks: where a compiler traces, ``torchfbi.method``, so that what is exported is the
method; else ``torchfbi.engine``, which is the same and fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from torchfbi.capture import own
from torchfbi.capture.captured import Captured
from torchfbi.engine.support import support
from torchfbi.engine.walk import Engine
from torchfbi.errors import InputError
from torchfbi.explanation.checks import check_images, check_values, check_walks
from torchfbi.explanation.samples import check_samples
from torchfbi.method import evidence
from torchfbi.method.flow import LayerFlow, observe
from torchfbi.method.seeds import Target, ask, check_classes, seed
from torchfbi.method.settings import Settings
from torchfbi.method.tokens import reached
from torchfbi.method.walk import Step, Values, explain
from torchfbi.system import forked
from torchfbi.system.finite import finite
from torchfbi.system.layout import repeated
from torchfbi.system.tracing import tracing

Visit = Callable[[LayerFlow], None]


class ForwardBackward(Captured):
    """Explain a network's answer by a forward pass and a backward walk, without autograd.

    >>> fbi = ForwardBackward(network, images, Settings.paper())
    >>> values, logits = fbi(images, target)

    It shows the network as it was when it was made, whatever is written to that one later: after a
    change make another one. Its first answer is held against the network's own.

    Args:
        module: a network of one input in evaluation mode, or an exported program; unchanged. Its
            own hooks are traced as a part of it.
        example: an input tensor (N, C, ...) that tells the sizes; its values do not count.
        settings: the method's knobs; ``Settings.contrast()`` by default.
        output: which output is explained where the network returns several.
        low_memory: keep only some activations and run parts of the network forward again on the
            way back: for very large images. The answer is the same.

    Raises:
        CaptureError: see ``torchfbi.capture.capture`` and ``torchfbi.capture.captured``.
        InputError: the network rejects inputs like ``example``.
    """

    def __init__(
        self,
        module: nn.Module | ExportedProgram,
        example: Tensor,
        settings: Settings | None = None,
        output: int | str | None = None,
        *,
        low_memory: bool = False,
    ) -> None:
        if not example.is_floating_point():
            raise InputError(f"images must be floating point, not {example.dtype}: use .float().")
        if example.is_nested or example.is_meta or example.layout != torch.strided:
            raise InputError("images must be one dense tensor (N, C, ...) that has values.")
        forked.on_one_thread()
        super().__init__(module, example, output)
        self._sizes = tuple(example.shape[1:])
        self._low_memory = low_memory
        self.settings = settings if settings is not None else Settings.contrast()
        self.eval()

    @property
    def settings(self) -> Settings:
        """The method's knobs; others may be set at any time."""
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._settings = settings
        self._plan()

    def _plan(self) -> None:
        """What follows from the graph and the settings."""
        self._engine = Engine(self.graph, self.settings, self._low_memory)

    def forward(self, x: Tensor, target: Target = None) -> tuple[Tensor, Tensor]:
        """Explain a batch.

        Args:
            x: images as the network takes them, (N, C, ...), floating point.
            target: the probed class of each sample, (N,) integers, or one for all; None for
                the top class; or a function from the logits to such classes (integers) or to a
                seed of the logits' own shape (floating point).

        Returns:
            values: the attribution, shaped like ``x``: dense where they are evidence, else
                zero off the support.
            logits: the network's output before a final softmax, (N, classes).

        Raises:
            InputError: wrong sizes, dtype or device. NonFiniteError: NaN or infinity in ``x``, in
                the logits, or on the way back.
            TargetError: no such class, or an output that needs a function as target.
        """
        return self.walk(x, target)

    def walk(
        self,
        x: Tensor,
        target: Target = None,
        visit: Visit | None = None,
        walks: int = 1,
        absorbed: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As ``forward``; ``visit`` is called at every feature, top to bottom, then the image.

        Args:
            walks: how often to walk back from the forward pass of one image, all at once, with a
                target each: the values, the logits and what is visited have as many samples.
            absorbed: takes what the image and the network's own tensors contribute (``tokens``).
        """
        check_images(x, self._sizes, self.get_buffer("_like"), self.graph.batch)
        if tracing():
            answer, logits = explain(self.graph, self._tensors(), self.settings, x, target)
            return self._of_classes(answer, logits, target), logits
        check_walks(walks, x)
        with own.undirected(x.device):
            values, logits = self._see(x, watched=visit is not None)
            if walks > 1 and not self._is_one(values):
                x = x.expand(walks, *x.shape[1:])
                values, logits = self._see(x, watched=visit is not None)
                walks = 1
            return self._explain(values, target, visit, walks, absorbed), repeated(logits, walks)

    @staticmethod
    def _of_classes(values: Tensor, logits: Tensor, target: Target) -> Tensor:
        """NaN for a class that there is not, which a traced graph cannot refuse."""
        if target is None or callable(target):
            return values
        classes = torch.as_tensor(target, device=logits.device)
        exists = (classes >= 0) & (classes < logits.shape[1])
        return torch.where(exists.reshape([-1] + [1] * (values.ndim - 1)), values, torch.nan)

    def each(self, x: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """As ``forward`` for several targets, which share one forward pass.

        For one image all walks are one, as if it were a batch; so they agree with ``forward`` as
        a sample's values in different batches do. More images are walked target by target.

        Returns:
            values: one attribution for each target, (targets, *x.shape).
            logits: (N, classes).
        """
        check_images(x, self._sizes, self.get_buffer("_like"), self.graph.batch)
        with own.undirected(x.device):
            values, logits = self._see(x)
            if not self._is_one(values):
                return torch.stack([self._explain(dict(values), t) for t in targets]), logits
            seeds = torch.cat([self._seed(target, logits) for target in targets])
            return self._explain(values, lambda _: seeds, walks=len(targets))[:, None], logits

    def _is_one(self, values: Values) -> bool:
        """Whether the forward pass saw one image, so that several walks may share its values."""
        first = {str(node.meta["val"].shape[0]) for node in (self.graph.image, *self.graph.path)}
        one = len(values[self.graph.image]) == 1
        return self.graph.batch is None and one and len(first) == 1

    def _see(self, x: Tensor, watched: bool = False) -> tuple[Values, Tensor]:
        """The checked forward pass: all that the walk reads, and the logits among it."""
        forked.on_one_thread()
        check_values(x)
        values = self._held(x.detach(), watched)
        check_samples(self.graph, self._tensors(), x.detach(), self._low_memory)
        return values, values[self.graph.logits]

    def _run(self, x: Tensor, watched: bool = True) -> Values:
        return self._engine.forward(self._tensors(), x, watched)

    def _seed(self, target: Target, logits: Tensor) -> Tensor:
        chosen = ask(target, logits, self.graph)
        check_classes(chosen, logits)
        return seed(logits, chosen, self.settings.seed)

    def _explain(
        self,
        values: Values,
        target: Target,
        visit: Visit | None = None,
        walks: int = 1,
        absorbed: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The attribution of one target, or of that many for one image, from a forward pass."""
        graph, settings = self.graph, self.settings
        x, logits = (repeated(values[node], walks) for node in (graph.image, graph.logits))
        seen: list[Tensor] = []
        resolutions = graph.resolutions if settings.values == "evidence" else []

        def look(step: Step) -> None:
            node = step.node
            if node in resolutions:
                channel = graph.channel[node]
                seen.append(finite(evidence.of_feature(step.signal, step.activation, channel)))
            if visit is not None and node in graph.features:
                visit(observe(step, settings, support))
            if absorbed is not None:
                reached(step, absorbed, len(x))

        start, overwrite = self._seed(target, logits), visit is None
        s = self._engine.backward(values, start, look, overwrite=overwrite, walks=walks)
        if absorbed is not None:
            absorbed["image"] = (s * x).flatten(1).sum(1)
        if settings.values == "evidence":
            s = evidence.placed(s, seen, x)
        if visit is not None:
            visit(observe(Step(graph.image, x, s, s, None, values), settings, support))
        return finite(s).contiguous()

    def flow(
        self, x: Tensor, target: Target = None
    ) -> tuple[Tensor, Tensor, tuple[LayerFlow, ...]]:
        """As ``forward``, and what was seen at every feature on the way (which keeps it all)."""
        flow: list[LayerFlow] = []
        values, logits = self.walk(x, target, flow.append)
        return values, logits, tuple(flow)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, f"network_{name}") for name in self.graph.tensors}
