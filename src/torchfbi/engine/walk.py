"""The walk, fast: memory is let go and written over, weights are packed, zeros are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.engine import packed, rules
from torchfbi.engine.schedule import Plan, schedule
from torchfbi.engine.select import select
from torchfbi.engine.sides import keeps_zero_maps, positive_inputs, rectified_outputs
from torchfbi.engine.signals import Signals
from torchfbi.method import adjoints
from torchfbi.method.graph import Graph
from torchfbi.method.settings import Settings
from torchfbi.method.walk import Look, Step, Values
from torchfbi.system.layout import Signs, laid_out, only_shape, only_signs, outlined, repeated

_CONVOLUTION = torch.ops.aten.convolution.default


class Engine:
    """As ``torchfbi.method.walk`` has them: ``forward`` and ``backward``.

    Args:
        graph: the captured network.
        settings: of the method; what the walk asks of the forward pass follows from them.
        low_memory: keep only some activations and run parts of the network forward again.
    """

    def __init__(self, graph: Graph, settings: Settings, low_memory: bool = False) -> None:
        self.graph, self.settings = graph, settings
        self.schedule = schedule(graph, settings, low_memory)
        self._features = set(graph.features)
        self._zero_maps = keeps_zero_maps(graph)
        self._positive = positive_inputs(graph)
        self._rectified = rectified_outputs(graph, settings)
        self._leaves_gate = set(self.schedule.gated.values())

    def __reduce__(self) -> Any:
        return Engine, (self.graph, self.settings, self.schedule.low_memory)

    def __deepcopy__(self, memo: Any) -> Engine:
        return self  # nothing ever writes to it

    def forward(self, tensors: Mapping[str, Tensor], x: Tensor, watched: bool = True) -> Values:
        """The forward pass. What nobody will read is let go at its last use.

        Args:
            watched: somebody looks at the activations on the way back; else of some the signs are
                kept alone.
        """
        values: Values = {node: tensors[str(node.target)] for node in self.graph.constants}
        values[self.graph.image] = laid_out(x)
        return self._run(self.schedule.forward, values, watched)

    def _run(self, plan: Plan, values: Values, watched: bool = True) -> Values:
        for node in plan.nodes:
            args, kwargs = self._arguments(node, values)
            value = packed.convolution(*args) if node.target is _CONVOLUTION else None
            if value is None:
                operator: Any = plan.in_place.get(node, node.target)
                value = operator(*args, **kwargs)
            values[node] = value
            for source in plan.releases[node]:
                values[source] = only_shape(values[source])
            for source in () if watched else plan.signs[node]:
                values[source] = only_signs(values[source])
        return values

    def backward(
        self, values: Values, seed: Tensor, look: Look, *, overwrite: bool, walks: int = 1
    ) -> Tensor:
        """The signal that a seed at the logits sends to the image.

        Args:
            values: from ``forward``; what was read of them is let go.
            look: called at each operator that a signal reaches, from the logits down.
            overwrite: nobody looks at a signal later, so one may be written over another.
            walks: how many walks from the forward pass of one image the seed starts.
        """
        graph, signals = self.graph, Signals(overwrite)
        signals.add(graph.logits, seed)
        for nodes, again in reversed(self.schedule.parts):
            here = values if again is None else self._run(again, dict(values))
            if walks > 1:
                here = {n: repeated(v, walks) if n in graph.path else v for n, v in here.items()}
            for node in reversed(nodes):
                value = here.pop(node)
                values.pop(node, None)  # all that used it lies behind us
                self._step(node, value, here, signals, look)
        s, x = signals.take(graph.image), repeated(values[graph.image], walks)
        return torch.zeros_like(x) if s is None else s

    def _step(
        self, node: fx.Node, value: Any, values: Values, signals: Signals, look: Look
    ) -> None:
        """What arrived at a node is selected if it is a feature, and handed back."""
        s, maps = signals.take(node), signals.maps(node)
        if s is None:
            return  # it computes a gate, or an output that was not probed
        graph, settings, incoming = self.graph, self.settings, s
        activation, value = value if isinstance(value, Signs) else (value, value)
        if node in self._features:
            memory = signals.owns(node), signals.scratch
            top_k, channel = node in graph.spatial, graph.channel[node]
            s, maps = select(s, activation, settings, *memory, channel=channel, top_k=top_k)
            if s is not incoming:
                signals.own(node)
        look(Step(node, activation, incoming, s, maps, values))
        some = not isinstance(settings.k, Tensor) and settings.k < 1
        maps = maps if some else None
        if node in self._leaves_gate:
            (source,) = graph.sources[node]
            signals.gated[source] = value
            signals.add(source, s, fresh=signals.owns(node), maps=maps)
            return
        at = rules.Site(
            value,
            settings,
            node,
            settings.gamma if node in graph.hidden else 0.0,
            overwrite=signals.owns(node),
            scratch=signals.scratch,
            maps=maps,
            rectified=settings.rectified and node in self._features,
            positive_input=node in self._positive,
            rectified_output=node in self._rectified,
            gated=signals.gated.pop(node, None),
        )
        fresh, backs = self._hand_back(s, at, values)
        for source, back in backs:  # one that was broadcast has fewer maps
            same = node in self._zero_maps and maps is not None and back.shape[:2] == maps.shape
            signals.add(source, back, fresh=fresh, maps=maps if same else None)

    def _hand_back(
        self, s: Tensor, at: rules.Site, values: Values
    ) -> tuple[bool, Iterator[tuple[fx.Node, Tensor]]]:
        """The adjoint of one operator: whether it hands back new memory, and a signal for each
        of its inputs."""
        node = at.node
        faster, known = rules.find(node.target), adjoints.find(node.target)
        assert known is not None
        args, kwargs = self._arguments(node, values)
        back = (faster or known).rule(s, at, *args, **kwargs)
        backs = [back] if isinstance(back, Tensor) else back or []
        return faster is not None, (
            (source, signal)
            for source, signal in zip(self.graph.sources[node], backs, strict=False)
            if signal is not None and not adjoints.is_held(source)
        )

    def _arguments(self, node: fx.Node, values: Values) -> tuple[Any, Any]:
        return self.graph.arguments(node, lambda source: outlined(values[source]))
