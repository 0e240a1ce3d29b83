"""The forward pass, or a part of it: a plan's operators in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from torchfbi.engine.packing import Packing
from torchfbi.engine.schedule import Plan
from torchfbi.system.layout import only_shape, only_signs
from torchfbi.system.tracing import tracing

Values = dict[fx.Node, Any]
Arguments = Callable[[fx.Node, Values], tuple[Any, Any]]


def compute(
    plan: Plan, values: Values, arguments: Arguments, packing: Packing, *, watched: bool
) -> Values:
    """The values that are known, and those of the plan's operators.

    Args:
        values: by node. What nobody reads later leaves only its shape.
        arguments: of an operator, given the values.
        packing: runs the convolutions that it makes faster.
        watched: somebody looks at the activations on the way back; else of some the signs are
            kept alone.
    """
    compiling = tracing()
    whole = watched or compiling
    for node in plan.nodes:
        args, kwargs = arguments(node, values)
        value = None if compiling else packing.convolution(node, args)
        if value is None:
            operator: Any = node.target if compiling else plan.in_place.get(node, node.target)
            value = operator(*args, **kwargs)
        values[node] = value
        for source in plan.releases[node]:
            values[source] = only_shape(values[source])
        for source in () if whole else plan.signs[node]:
            values[source] = only_signs(values[source])
    return values
