"""Whether each sample of a batch is explained by its own image.

``capture`` refuses by name what is known to compute over the samples. But slices, borders, a
reshape or a transposed map carry them to each other as well, and there is no list of all such ways.
So it is tried: what a seed at one sample sends to the image of another is nothing, or the network
is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from torchfbi.engine.walk import Engine
from torchfbi.errors import CaptureError
from torchfbi.method.graph import Graph
from torchfbi.method.settings import Settings
from torchfbi.method.walk import Step

_tried: WeakKeyDictionary[Graph, int] = WeakKeyDictionary()

MOST = 3
"""Images that are tried: of two, some permutations of more are none."""


def check_samples(
    graph: Graph, tensors: Mapping[str, Tensor], x: Tensor, low_memory: bool = False
) -> None:
    """Refuse a network that carries one sample's signal to another's image. Tried once for each
    graph, on the first images, or as many as it fixes.

    Args:
        graph, tensors: the captured network.
        x: images that it took, (N, C, ...).
        low_memory: as for the explanation.

    Raises:
        CaptureError: it does.
    """
    x = x[:MOST] if graph.batch is None else x
    if len(x) <= _tried.get(graph, 1):
        return
    engine = Engine(graph, Settings(), low_memory)  # signals of both signs
    values = engine.forward(tensors, x)
    logits, any_numbers = values[graph.logits], torch.Generator("cpu").manual_seed(0)
    some = torch.randn(logits.shape, generator=any_numbers, device="cpu").to(logits)
    numbers = torch.arange(len(x), device=x.device)
    for bit in range((len(x) - 1).bit_length()):  # any two differ in one
        for asked in ((numbers >> bit) & 1 == side for side in (0, 1)):
            seed = some * asked.view(-1, *[1] * (some.ndim - 1))
            where = list[str]()

            def look(step: Step, rest: Tensor = ~asked, where: list[str] = where) -> None:
                if len(step.signal) == len(rest) and step.signal[rest].any():
                    where.append(step.node.meta["layer"])

            signal = engine.backward(dict(values), seed, look, overwrite=False)
            if signal[~asked].any():
                raise CaptureError(
                    f"behind {where[0] if where else 'the image'} the network mixes the samples of "
                    "a batch: what speaks for the answer to one image lies in other images. "
                    "Explain one image at a time, or leave that out."
                )
    _tried[graph] = len(x)
