"""The one idea: forward once and keep the activations, then walk back by adjoints.

Reads like section 2 of the paper. The captured network runs forward; a seed is put at the logits
and handed back operator by operator. Signals that meet at one tensor are summed, and at every
feature only the selected part goes on. What reaches the image is the attribution.

Slow and clear: every value is kept, and nothing is written over. ``torchfbi.engine`` is the same
walk, fast, and proof 9 says that they agree. What ``torchfbi.export`` writes is this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from torchfbi.method import adjoints, evidence
from torchfbi.method.graph import Graph
from torchfbi.method.seeds import Target, ask, seed
from torchfbi.method.selection import select
from torchfbi.method.settings import Settings

Values = dict[fx.Node, Any]


class Step(NamedTuple):
    """What happened at one operator on the way back.

    Args:
        node: the operator.
        activation: its forward value, (N, C, ...).
        incoming: the signal that came back to it, of the same shape.
        signal: what of it goes on.
        maps: which maps of a feature go on, (N, C) bool; None for all.
        values: the forward values of other nodes.
    """

    node: fx.Node
    activation: Tensor
    incoming: Tensor
    signal: Tensor
    maps: Tensor | None
    values: Values


Look = Callable[[Step], None]


def explain(
    graph: Graph,
    tensors: Mapping[str, Tensor],
    settings: Settings,
    x: Tensor,
    target: Target = None,
) -> tuple[Tensor, Tensor]:
    """Explain a batch: the attribution, shaped like ``x``, and the logits.

    Args:
        graph: the captured network.
        tensors: its weights by name, as ``graph.tensors``.
        settings: of the method.
        x: images as the network takes them, (N, C, ...), floating point.
        target: see ``torchfbi.method.seeds.ask``.
    """
    values = forward(graph, tensors, x)
    logits = values[graph.logits]
    seen: list[Tensor] = []

    def look(step: Step) -> None:
        if step.node in graph.resolutions:
            channel = graph.channel[step.node]
            seen.append(evidence.of_feature(step.signal, step.activation, channel))

    start = seed(logits, ask(target, logits, graph), settings.seed)
    s = backward(graph, settings, values, start, look)
    return (evidence.placed(s, seen, x) if settings.values == "evidence" else s), logits


def forward(graph: Graph, tensors: Mapping[str, Tensor], x: Tensor) -> Values:
    """The forward pass: the value of every node."""
    values: Values = {node: tensors[str(node.target)] for node in graph.constants}
    values[graph.image] = x
    for node in graph.nodes:
        args, kwargs = graph.arguments(node, values.__getitem__)
        operator: Any = node.target
        values[node] = operator(*args, **kwargs)
    return values


def backward(
    graph: Graph, settings: Settings, values: Values, start: Tensor, look: Look = lambda step: None
) -> Tensor:
    """The backward walk: the signal that a seed at the logits sends to the image.

    Args:
        start: the seed.
        look: called at each operator that a signal reaches, from the logits down.
    """
    signals = {graph.logits: start}
    for node in reversed(graph.nodes):
        if node not in signals:
            continue  # it computes a gate, or an output that was not probed
        incoming = signals.pop(node)
        s, maps = incoming, None
        if node in graph.features:
            top_k, channel = node in graph.spatial, graph.channel[node]
            s, maps = select(incoming, values[node], settings, channel=channel, top_k=top_k)
        look(Step(node, values[node], incoming, s, maps, values))
        for source, back in hand_back(graph, settings, values, node, s):
            signals[source] = signals[source] + back if source in signals else back
    return signals.get(graph.image, torch.zeros_like(values[graph.image]))


def hand_back(
    graph: Graph, settings: Settings, values: Values, node: fx.Node, s: Tensor
) -> Iterator[tuple[fx.Node, Tensor]]:
    """The adjoint of one operator: a signal for each of its inputs that depend on the image."""
    found = adjoints.find(node.target)
    assert found is not None
    gamma = settings.gamma if node in graph.hidden else 0.0
    args, kwargs = graph.arguments(node, values.__getitem__)
    backs = found.rule(s, adjoints.Site(values[node], settings, node, gamma), *args, **kwargs)
    backs = [backs] if isinstance(backs, Tensor) else backs or []  # one speaks of the first input
    for source, back in zip(graph.sources[node], backs, strict=False):
        if back is not None and not adjoints.is_held(source):
            yield source, back
