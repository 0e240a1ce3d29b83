"""Where the graph is cut so that the walk may run its parts forward again, and needs less memory.

Between two borders nothing is kept but what crosses them; the walk computes a segment's values
anew when it gets there (Chen et al., "Training deep nets with sublinear memory cost", 2016). Every
operator runs twice, on the same numbers, so the answer is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from torchfbi.method.adjoints import is_tensor

LIMITS = 24
"""How many limits of a segment's size are tried, each three quarters of the one before."""


@dataclass(frozen=True)
class Segment:
    """Neighbouring operators.

    Args:
        nodes: in the order of the forward pass.
        crossing: the values from before that are read in it or behind it.
    """

    nodes: list[fx.Node]
    crossing: set[fx.Node]


def segments(nodes: Sequence[fx.Node], reads: dict[fx.Node, set[fx.Node]]) -> list[Segment]:
    """Cut where all that crosses the borders, and the largest segment, take the least memory.

    Args:
        nodes: all operators in the order of the forward pass.
        reads: the forward values that the walk reads at each.
    """
    crossing = _crossing(nodes)
    costs = [sum(map(_bytes, values)) for values in crossing]
    sizes = [sum(map(_bytes, reads[node] & {node, *node.all_input_nodes})) for node in nodes]
    limit, best = float(sum(sizes)), (float("inf"), list[int]())
    for _ in range(LIMITS):
        borders = _borders(costs, sizes, limit)
        ends = [*borders[1:], len(nodes)]
        largest = max(sum(sizes[i:j]) for i, j in zip(borders, ends, strict=True))
        best = min(best, (sum(costs[i] for i in borders) + largest, borders))
        limit = min(limit, largest) * 0.75
    borders = best[1]
    return [
        Segment(list(nodes[i:j]), crossing[i])
        for i, j in zip(borders, [*borders[1:], len(nodes)], strict=True)
    ]


def _borders(costs: list[int], sizes: list[int], limit: float) -> list[int]:
    """Where segments start that are no larger than the limit if they can be, so that what crosses
    the borders is least: the shortest path from the last node to the first."""
    count = len(sizes)
    least: list[tuple[float, int]] = [(0.0, count)] * (count + 1)  # from i on, and the next border
    for i in reversed(range(count)):
        size, found = 0, (float("inf"), count)
        for j in range(i + 1, count + 1):
            size += sizes[j - 1]
            if size > limit and j > i + 1:
                break
            found = min(found, (least[j][0] + (costs[j] if j < count else 0), j))
        least[i] = found
    borders, i = [0], least[0][1]
    while i < count:
        borders.append(i)
        i = least[i][1]
    return borders


def _crossing(nodes: Sequence[fx.Node]) -> list[set[fx.Node]]:
    """For each node the values from before it that are read from it on."""
    last = {source: i for i, node in enumerate(nodes) for source in node.all_input_nodes}
    crossing: list[set[fx.Node]] = []
    alive = set[fx.Node]()
    for i, node in enumerate(nodes):
        alive = {value for value in alive if last[value] >= i}
        crossing.append(alive)
        if node in last:
            alive = alive | {node}
    return crossing


def _bytes(node: fx.Node) -> int:
    """What the value of one sample takes."""
    if not is_tensor(node):
        return 0
    value = node.meta["val"]
    return int(value.shape[1:].numel() * value.element_size())
