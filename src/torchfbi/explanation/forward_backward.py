"""The one idea: forward once and keep the activations, then walk back by adjoints.

Reads like section 2 of the paper. ``ForwardBackward`` runs the captured network, puts a seed at
the logits and hands it back operator by operator. Signals that meet at one tensor are summed,
and at every feature only the selected part goes on. What reaches the image is the attribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from torchfbi.capture.captured import Captured
from torchfbi.engine.checks import check_images, check_walks
from torchfbi.engine.forward import compute
from torchfbi.engine.packing import Packing
from torchfbi.engine.schedule import Plan, schedule
from torchfbi.engine.signals import Signals
from torchfbi.errors import InputError
from torchfbi.method import adjoints, evidence
from torchfbi.method.flow import LayerFlow, observe
from torchfbi.method.seeds import Target, seed_for
from torchfbi.method.selection import select
from torchfbi.method.settings import Settings
from torchfbi.method.tokens import reached
from torchfbi.system import forked
from torchfbi.system.finite import finite
from torchfbi.system.layout import Signs, laid_out, outlined, repeated
from torchfbi.system.tracing import tracing

Visit = Callable[[LayerFlow], None]
Look = Callable[[fx.Node, Tensor, Tensor, Tensor, Tensor | None], None]


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
        forked.on_one_thread()
        super().__init__(module, example, output)
        self.settings = settings if settings is not None else Settings.contrast()
        self._sizes = tuple(example.shape[1:])
        self._low_memory = low_memory
        self._plan()
        self.eval()

    def _plan(self) -> None:
        """What follows from the graph."""
        self._schedule = schedule(self.graph, self.settings, self._low_memory)
        self._packing = Packing(self.graph)

    def forward(self, x: Tensor, target: Target = None) -> tuple[Tensor, Tensor]:
        """Explain a batch.

        Args:
            x: images as the network takes them, (N, C, ...), floating point.
            target: the probed class of each sample, (N,) integers, or one for all; None for
                the top class; or a function from the logits to such classes (integers) or to a
                seed of the logits' own shape (floating point).

        Returns:
            values: the attribution, shaped like ``x``; zero off the support.
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
        check_walks(walks, x)
        values, logits = self._see(x, watched=visit is not None)
        if walks > 1 and not self._is_one(values):
            x = x.expand(walks, *x.shape[1:])
            values, logits = self._see(x, watched=visit is not None)
            walks = 1
        return self._explain(values, target, visit, walks, absorbed), repeated(logits, walks)

    def each(self, x: Tensor, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """As ``forward`` for several targets, which share one forward pass.

        For one image all walks are one, as if it were a batch; so they agree with ``forward`` as
        a sample's values in different batches do. More images are walked target by target.

        Returns:
            values: one attribution for each target, (targets, *x.shape).
            logits: (N, classes).
        """
        values, logits = self._see(x)
        if not self._is_one(values):
            return torch.stack([self._explain(dict(values), t) for t in targets]), logits
        seeds = torch.cat(
            [seed_for(t, logits, self.settings.seed, self.graph.tail) for t in targets]
        )
        return self._explain(values, lambda _: seeds, walks=len(targets))[:, None], logits

    def _is_one(self, values: dict[fx.Node, Any]) -> bool:
        """Whether the forward pass saw one image, so that several walks may share its values."""
        on_path = (self.graph.image, *self.graph.path)
        return self.graph.batch is None and all(
            len(outlined(values[node])) == 1 for node in on_path
        )

    def _see(self, x: Tensor, watched: bool = False) -> tuple[dict[fx.Node, Any], Tensor]:
        """The checked forward pass: all that the walk reads, and the logits among it."""
        x = x.detach()
        check_images(x, self._sizes, self.get_buffer("_like"), self.graph.batch)
        values = self._run(x, watched) if tracing() else self._held(x, watched)
        return values, values[self.graph.logits]

    def _explain(
        self,
        values: dict[fx.Node, Any],
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

        def look(
            node: fx.Node, value: Tensor, incoming: Tensor, s: Tensor, maps: Tensor | None
        ) -> None:
            if node in resolutions:
                seen.append(finite(evidence.of_feature(s, value, graph.channel[node])))
            if visit is not None and (node in graph.features or node is graph.image):
                visit(observe(node, value, incoming, s, maps, settings))

        # Nobody looks at the signals later, so one may be written over another.
        overwrite = visit is None and not tracing()
        seed = seed_for(target, logits, settings.seed, graph.tail)
        s = self._back(seed, values, look, overwrite, walks, absorbed)
        if absorbed is not None:
            absorbed["image"] = (s * x).flatten(1).sum(1)
        if settings.values == "evidence":
            s = evidence.placed(s, seen, x)
        look(graph.image, x, s, s, None)
        return finite(s).contiguous()

    def _back(
        self,
        seed: Tensor,
        values: dict[fx.Node, Any],
        look: Look,
        overwrite: bool = False,
        walks: int = 1,
        absorbed: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The backward walk: the signal that a seed at the logits sends to the image."""
        graph, signals = self.graph, Signals(overwrite)
        signals.add(graph.logits, seed)
        for nodes, again in reversed(self._schedule.parts):
            here = values if again is None else self._compute(again, dict(values))
            if walks > 1:
                here = {n: repeated(v, walks) if n in graph.path else v for n, v in here.items()}
            for node in reversed(nodes):
                value = here.pop(node)
                values.pop(node, None)  # all that used it lies behind us
                self._step(node, value, here, signals, look, absorbed)
        s, x = signals.take(graph.image), repeated(values[graph.image], walks)
        return torch.zeros_like(x) if s is None else s

    def _step(
        self,
        node: fx.Node,
        value: Any,
        values: dict[fx.Node, Any],
        signals: Signals,
        look: Look,
        absorbed: dict[str, Tensor] | None = None,
    ) -> None:
        """What arrived at a node is selected if it is a feature, and handed back."""
        s, maps = signals.take(node), signals.maps(node)
        if s is None:
            return  # it computes a gate, or an output that was not probed
        activation, value = value if isinstance(value, Signs) else (value, value)
        if node in self._schedule.stations:
            arrived = s
            s, maps = self._select(node, s, activation, look, signals)
            if s is not arrived:
                signals.own(node)
        if absorbed is not None:
            reached(node, s, lambda source: self._value(source, values), absorbed)
        rectified = node in self.graph.features and self.settings.rectified
        gamma = self.settings.gamma if node in self.graph.hidden else 0.0
        memory = signals.owns(node), signals.scratch
        sides = node in self.graph.one_sided and self.settings.gates != "rectify"
        at = adjoints.Site(value, self.settings, node, *memory, maps, rectified, gamma, sides)
        fresh, backs = self._hand_back(s, at, values)
        if node not in self.graph.keeps_zero_maps:
            maps = None
        for source, back in backs:
            signals.add(source, back, fresh=fresh, maps=maps)

    def flow(
        self, x: Tensor, target: Target = None
    ) -> tuple[Tensor, Tensor, tuple[LayerFlow, ...]]:
        """As ``forward``, and what was seen at every feature on the way (which keeps it all)."""
        flow: list[LayerFlow] = []
        values, logits = self.walk(x, target, flow.append)
        return values, logits, tuple(flow)

    def _run(self, x: Tensor, watched: bool = True) -> dict[fx.Node, Any]:
        """The forward pass. What nobody will read is let go at its last use."""
        return self._compute(self._schedule.forward, {self.graph.image: laid_out(x)}, watched)

    def _compute(
        self, plan: Plan, values: dict[fx.Node, Any], watched: bool = True
    ) -> dict[fx.Node, Any]:
        return compute(plan, values, self._arguments, self._packing, watched=watched)

    def _hand_back(
        self, s: Tensor, at: adjoints.Site, values: dict[fx.Node, Any]
    ) -> tuple[bool, list[tuple[fx.Node, Tensor]]]:
        """The adjoint of one operator: whether it hands back new memory, and a signal for each
        of its inputs."""
        node = at.node
        found = adjoints.find(node.target)
        assert found is not None
        args, kwargs = self._arguments(node, values)
        back = found.rule(s, at, *args, **kwargs)
        signals = [back] if isinstance(back, Tensor) else back or []
        return found.fresh, [
            (source, signal)
            for source, signal in zip(self.graph.sources[node], signals, strict=False)
            if signal is not None and not adjoints.is_held(source)
        ]

    def _arguments(self, node: fx.Node, values: dict[fx.Node, Any]) -> tuple[Any, Any]:
        return self.graph.arguments(node, lambda source: self._value(source, values))

    def _value(self, source: fx.Node, values: dict[fx.Node, Any]) -> Any:
        own = source.op == "get_attr"
        return getattr(self, f"network_{source.target}") if own else outlined(values[source])

    def _select(
        self, node: fx.Node, s: Tensor, value: Tensor, look: Look, signals: Signals
    ) -> tuple[Tensor, Tensor | None]:
        """Filter the signal at a feature: what goes on, and the maps that do if not all."""
        graph, settings, channel = self.graph, self.settings, self.graph.channel[node]
        incoming, maps = s, None
        if node in graph.features:
            memory = signals.owns(node), signals.scratch
            top_k = node in graph.spatial
            s, maps = select(s, value, settings, *memory, channel=channel, top_k=top_k)
        look(node, value, incoming, s, maps)
        some = not isinstance(settings.k, Tensor) and settings.k < 1  # as an input it may be 1
        return s, maps if some else None
