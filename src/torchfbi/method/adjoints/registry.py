"""The table of adjoints: ATen operator -> the rule that hands a signal back to its inputs.

A rule is one small function, called as ``rule(s, at, *args, **kwargs)``:

- ``s`` is the signal at the operator's output, a tensor of the output's shape;
- ``at`` tells where we are: the forward output, the settings and the graph node;
- ``args`` and ``kwargs`` are the operator's own, as in its ATen schema. Tensors that the rule
  did not ask to keep carry a shape, dtype and device, but no values.

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

from torchfbi.engine.scratch import NO_SCRATCH, Scratch
from torchfbi.method.settings import Settings

Signals = Tensor | None | Sequence[Tensor | None]
Rule = Callable[..., Signals]
RuleT = TypeVar("RuleT", bound=Rule)


class Site(NamedTuple):
    """Where a rule is applied.

    Args:
        output: the operator's forward output.
        settings: of the walk.
        node: the operator's.
        overwrite: whether the rule may write over the signal.
        scratch: memory for what the rule computes on the way.
        maps: the signal's maps that are not known to be zero, (N, C) bool; None for all.
        rectified: the selection let no negative signal through.
        gamma: of the excitation walk; 0 for the plain adjoint.
        one_sided: no input is negative, nor any output at which the signal is not zero.
    """

    output: Tensor
    settings: Settings
    node: fx.Node
    overwrite: bool = False
    scratch: Scratch = NO_SCRATCH
    maps: Tensor | None = None
    rectified: bool = False
    gamma: float = 0.0
    one_sided: bool = False


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
    """Whether nothing flows to a tensor: a weight, or what the walk holds constant, which the
    graph says by a ``detach``."""
    return node.op == "get_attr" or node.target is torch.ops.aten.detach.default


def first_argument(node: fx.Node) -> list[fx.Node]:
    """The node's first tensor argument, alone in a list."""
    return tensor_arguments(node)[:1]


@dataclass(frozen=True)
class Adjoint:
    """A rule, the forward values it needs, and where its signal goes.

    Args:
        rule: see the module's docstring.
        keeps: which forward values the rule reads: "inputs", "output", both or none.
        activation: the operator is an activation function, so its output is a feature.
        receivers: which arguments get a signal; by default the first one, so that weights
            and gates computed from the image are held constant.
        fresh: what the rule returns is memory of its own, or the signal itself.
        spares: which of the values in ``keeps`` it does not read under given settings.
    """

    rule: Rule
    keeps: frozenset[str]
    activation: bool
    receivers: Callable[[fx.Node], list[fx.Node]]
    fresh: bool
    spares: Callable[[Settings], set[str]]

    def reads(self, settings: Settings) -> frozenset[str]:
        """Which forward values the rule reads under these settings."""
        return self.keeps - self.spares(settings)


_TABLE: dict[Any, Adjoint] = {}


def adjoint(
    *operators: Any,
    keeps: tuple[str, ...] = (),
    activation: bool = False,
    receivers: Callable[[fx.Node], list[fx.Node]] = first_argument,
    fresh: bool = False,
    spares: Callable[[Settings], set[str]] = lambda settings: set(),
) -> Callable[[RuleT], RuleT]:
    """Register the decorated function as the adjoint of ``operators`` (ATen overloads)."""

    def register(rule: RuleT) -> RuleT:
        for operator in operators:
            _TABLE[operator] = Adjoint(rule, frozenset(keeps), activation, receivers, fresh, spares)
        return rule

    return register


def find(operator: Any) -> Adjoint | None:
    """The adjoint of an ATen overload, or None where the table has none."""
    return _TABLE.get(operator)


def operators() -> list[Any]:
    """All operators that have an adjoint."""
    return list(_TABLE)


def receivers(node: fx.Node) -> list[fx.Node]:
    """The image-dependent arguments that get a signal from ``node``: numbers with fractions, as
    integers and decisions are constant around almost every image."""
    found = find(node.target)
    chosen = found.receivers(node) if found else tensor_arguments(node)
    return [
        argument
        for argument in chosen
        if not is_held(argument) and argument.meta["val"].is_floating_point()
    ]
