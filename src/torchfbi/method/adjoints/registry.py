"""The table of adjoints: ATen operator -> the rule that hands a signal back to its inputs.

A rule is one small function, called as ``rule(s, at, *args, **kwargs)``:

- ``s`` is the signal at the operator's output, a tensor of the output's shape;
- ``at`` tells where we are: the forward output, the settings and the graph node;
- ``args`` and ``kwargs`` are the operator's own, as in its ATen schema. Tensors that the rule
  did not ask to keep may carry a shape, dtype and device alone: the engine lets the values go.

It returns the signal for each tensor argument in order (None: nothing flows there); a rule that
returns one tensor speaks of the first. Sums over several users are the walk's business, and so
is dropping the signal of an argument that does not depend on the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, fx

from torchfbi.method.settings import Settings

Signals = Tensor | None | Sequence[Tensor | None]
Rule = Callable[..., Signals]
RuleT = TypeVar("RuleT", bound=Rule)


@dataclass
class Site:
    """Where a rule is applied.

    Args:
        output: the operator's forward output.
        settings: of the walk.
        node: the operator's.
        gamma: of the excitation walk; 0 where the plain adjoint is asked for.
    """

    output: Tensor
    settings: Settings
    node: fx.Node
    gamma: float = 0.0


def tensor_arguments(node: fx.Node) -> list[fx.Node]:
    """The node's tensor arguments in the order of the call, repeated ones repeated."""
    found: list[fx.Node] = []

    def note(argument: fx.Node) -> fx.Node:
        if is_tensor(argument):
            found.append(argument)
        return argument

    fx.node.map_arg((node.args, node.kwargs), note)
    return found


def is_tensor(node: fx.Node) -> bool:
    """Whether the node's value is a tensor (and not a size or a number)."""
    return isinstance(node.meta.get("val"), Tensor)


def is_held(node: fx.Node) -> bool:
    """Whether nothing flows to a tensor: a weight, what the walk holds constant, which the graph
    says by a ``detach``, or integers and decisions, constant around almost every image."""
    held = node.op == "get_attr" or node.target is torch.ops.aten.detach.default
    return held or not node.meta["val"].is_floating_point()


def first_argument(node: fx.Node) -> list[fx.Node]:
    """The node's first tensor argument, alone in a list."""
    return tensor_arguments(node)[:1]


class Adjoint(NamedTuple):
    """A rule, the forward values it needs, and where its signal goes.

    Args:
        rule: see the module's docstring.
        keeps: which forward values the rule reads: "inputs", "output", both or none.
        activation: the operator is an activation function, so its output is a feature.
        receivers: which arguments get a signal; by default the first one, so that weights
            and gates computed from the image are held constant.
    """

    rule: Rule
    keeps: frozenset[str]
    activation: bool
    receivers: Callable[[fx.Node], list[fx.Node]]


_TABLE: dict[Any, Adjoint] = {}


def adjoint(
    *operators: Any,
    keeps: tuple[str, ...] = (),
    activation: bool = False,
    receivers: Callable[[fx.Node], list[fx.Node]] = first_argument,
) -> Callable[[RuleT], RuleT]:
    """Register the decorated function as the adjoint of ``operators`` (ATen overloads)."""

    def register(rule: RuleT) -> RuleT:
        for operator in operators:
            _TABLE[operator] = Adjoint(rule, frozenset(keeps), activation, receivers)
        return rule

    return register


def find(operator: Any) -> Adjoint | None:
    """The adjoint of an ATen overload, or None where the table has none."""
    return _TABLE.get(operator)


def operators() -> list[Any]:
    """All operators that have an adjoint."""
    return list(_TABLE)


def receivers(node: fx.Node) -> list[fx.Node]:
    """The image-dependent arguments that get a signal from ``node``."""
    found = find(node.target)
    chosen = found.receivers(node) if found else tensor_arguments(node)
    return [argument for argument in chosen if not is_held(argument)]
