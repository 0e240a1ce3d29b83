"""The second table: faster rules for the operators at which time goes.

Each says the same as the method's rule of that operator and takes its arguments, with a ``Site``
that knows more. An operator that is missing here falls back on the method's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, fx

from torchfbi.engine.scratch import NO_SCRATCH, Scratch
from torchfbi.method import adjoints
from torchfbi.method.adjoints import tensor_arguments
from torchfbi.method.settings import Settings

RuleT = TypeVar("RuleT", bound=Callable[..., Any])
Reads = Callable[[Settings, float], set[str]]


@dataclass
class Site(adjoints.Site):
    """Where a rule is applied, and what it may do there.

    Args:
        overwrite: the rule may write over the signal.
        scratch: memory for what the rule computes on the way.
        maps: the signal's maps that are not known to be zero, (N, C) bool; None for all.
        rectified: the selection let no negative signal through.
        positive_input: no input is negative.
        rectified_output: no output is negative at which the signal is not zero.
        gated: what the activation function behind made of the output, where its gate is left to
            the rule, whose output is rectified then; None where the signal passed it.
    """

    overwrite: bool = False
    scratch: Scratch = NO_SCRATCH
    maps: Tensor | None = None
    rectified: bool = False
    positive_input: bool = False
    rectified_output: bool = False
    gated: Tensor | None = None

    @property
    def reads_gated_alone(self) -> bool:
        """Whether ``gated`` tells the output where it counts: behind a ReLU."""
        return self.gated is not None and _is_relu(next(iter(self.node.users)))


class Faster(NamedTuple):
    """A rule that returns memory of its own, or the signal's where it may be written over.

    Args:
        rule: called as the method's.
        reads: which forward values it reads, "inputs", "output", under given settings and the gamma
            of the operator.
    """

    rule: Callable[..., Any]
    reads: Reads


_TABLE: dict[Any, Faster] = {}


def faster(*operators: Any, reads: Reads) -> Callable[[RuleT], RuleT]:
    """Register the decorated function for ``operators`` (ATen overloads)."""

    def register(rule: RuleT) -> RuleT:
        _TABLE.update(dict.fromkeys(operators, Faster(rule, reads)))
        return rule

    return register


def find(operator: Any) -> Faster | None:
    """The faster rule of an operator, or None where the method's is as good."""
    return _TABLE.get(operator)


def _is_relu(node: fx.Node) -> bool:
    return node.target is torch.ops.aten.relu.default


def values_read(
    node: fx.Node, settings: Settings, gamma: float, gated: Mapping[fx.Node, fx.Node]
) -> set[fx.Node]:
    """The forward values that the rule of a node on the path reads.

    Args:
        gamma: 0 where the node's layer is not hidden.
        gated: see ``sides.gated_behind``.
    """
    found, known = find(node.target), adjoints.find(node.target)
    assert known is not None  # else the network would have been refused
    what = found.reads(settings, gamma) if found else known.keeps
    given = tensor_arguments(node)
    # Weights that the network computes are no constants, as those are that every rule may read.
    read = set(given if "inputs" in what else set(given).difference(adjoints.receivers(node)))
    if node in gated:
        read.add(gated[node])
    alone = node in gated and _is_relu(gated[node])
    return read | {node} if "output" in what and not alone else read
