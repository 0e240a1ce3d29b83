"""Forward pass and backward walk as one graph, whose target, k and tau are inputs."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from torchfbi.capture.folding import FREE
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.evidence import support_of_values
from torchfbi.method.settings import Settings
from torchfbi.system.quiet import quiet
from torchfbi.system.tracing import traced_here

TOP_CLASS = -1
"""The target that asks for each sample's most probable class."""


class Inputs(NamedTuple):
    """What an exported explainer is given.

    Args:
        image: images as the network takes them, (N, C, ...) floating point.
        target: the probed class of each sample, (N,) int64; ``TOP_CLASS`` for its top class.
        k: the share of the feature maps that goes on, () float64 in (0, 1].
        tau: the threshold, () float64.
        others: further inputs of a network of several, (N, ...) each, by the names of its forward's
            arguments; held, as the explanation is about the image.

    What the settings do not use, k = 1 or tau = None, is None and no input of the graph either.
    """

    image: Tensor
    target: Tensor
    k: Tensor | None
    tau: Tensor | None
    others: Mapping[str, Tensor] = MappingProxyType({})

    def named(self) -> dict[str, Tensor]:
        """The inputs by name."""
        own = {"image": self.image, "target": self.target, "k": self.k, "tau": self.tau}
        return {name: t for name, t in own.items() if t is not None} | dict(self.others)

    def part(self, samples: slice) -> Inputs:
        """The same of some of its samples."""
        others = {name: tensor[samples] for name, tensor in self.others.items()}
        image, target = self.image[samples], self.target[samples]
        return self._replace(image=image, target=target, others=others)

    @classmethod
    def of(
        cls,
        image: Tensor,
        target: Tensor,
        settings: Settings,
        others: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Inputs:
        """The question that these settings ask."""

        def number(value: float | None) -> Tensor | None:
            if value is None:
                return None
            return torch.tensor(value, dtype=torch.float64, device=image.device)

        k = None if settings.k == 1 else settings.k
        return cls(image, target, number(k), number(settings.tau), others)


class Outputs(NamedTuple):
    """What an exported explainer returns.

    Args:
        logits: the network's output before a final softmax, (N, classes).
        values: the attribution, shaped like the image; NaN for a class that does not exist.
        support: which pixels carry the explanation, (N, ...) bool.
    """

    logits: Tensor
    values: Tensor
    support: Tensor


class Explainer(nn.Module):
    """A ``ForwardBackward`` in the form in which it is exported: tensors in, tensors out.

    Args:
        walker: the explainer.
    """

    def __init__(self, walker: ForwardBackward) -> None:
        super().__init__()
        self.walker = walker

    def forward(
        self,
        image: Tensor,
        target: Tensor,
        k: Tensor | None = None,
        tau: Tensor | None = None,
        **others: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The fields of ``Outputs`` to ``Inputs``; a file must not need our classes."""
        walker = copy.copy(self.walker)
        places = {str(node.meta.get("layer")): node.target for node in walker.graph.constants}
        given = {places.get(FREE + name): tensor for name, tensor in others.items()}
        walker._buffers = {
            **walker._buffers,
            **{f"network_{place}": tensor for place, tensor in given.items() if place is not None},
        }
        walker.settings = _asking(walker.settings, k=k, tau=tau)
        values, logits = walker.walk(
            image, lambda logits: torch.where(target < 0, logits.argmax(1), target)
        )
        exists = (target >= TOP_CLASS) & (target < logits.shape[1])
        exists = exists.reshape([-1] + [1] * (values.ndim - 1))
        support = support_of_values(torch.where(exists, values, 0.0), self.walker.settings)
        return logits, torch.where(exists, values, torch.nan), support


def _asking(settings: Settings, **numbers: Tensor | None) -> Settings:
    """The settings with tensors in place of numbers, which cannot be validated."""
    asking = copy.copy(settings)
    for name, number in numbers.items():
        if number is not None:
            object.__setattr__(asking, name, number)
    return asking


def trace(
    walker: ForwardBackward,
    example: Tensor,
    size: int | None = None,
    others: Mapping[str, Tensor] = MappingProxyType({}),
) -> ExportedProgram:
    """The explainer as one exported program.

    Args:
        walker: the explainer, of a network whose logits are (N, classes).
        example: (N, C, ...) of the sizes that it was made for; its values do not count.
        size: of the batch; None leaves it free.
        others: further inputs, as in ``Inputs``.
    """
    image, *further = (
        tensor.new_zeros(size or 2, *tensor.shape[1:]) for tensor in (example, *others.values())
    )
    target = torch.full((len(image),), TOP_CLASS, device=image.device)
    others = dict(zip(others, further, strict=True))
    question = Inputs.of(image, target, walker.settings, others).named()
    shapes: dict[str, Any] = dict.fromkeys(question)
    if size is None:
        batch = Dim("batch")
        shapes |= {name: {0: batch} for name in ("image", "target", *others)}
    explainer = Explainer(walker)
    # To torch.export inputs of any name are one, whose sizes it mistakes.
    forward = functools.partial(explainer.forward)
    names = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in question]
    forward.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    explainer.forward = forward  # type: ignore[method-assign]
    with torch.no_grad(), quiet(), traced_here():  # torch.export warns about its own internals
        return torch.export.export(
            explainer, (), kwargs=question, dynamic_shapes=shapes, strict=False
        )
