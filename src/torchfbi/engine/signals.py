"""The signals on their way back: here they meet, and nowhere else."""

from __future__ import annotations

from torch import Tensor, fx

from torchfbi.engine.scratch import Scratch


class Signals:
    """What has arrived at the nodes that the walk has still to reach.

    A new tensor as large as an early feature costs more in page faults than the arithmetic on it,
    so memory that nobody else holds is written over.

    ``gated`` has what the activation function behind a node made of its output, where the gate is
    left to the node.

    Args:
        overwrite: whether that is allowed: not where somebody looks at the signals later.
    """

    def __init__(self, overwrite: bool) -> None:
        self._overwrite = overwrite
        self.scratch = Scratch(kept=overwrite)
        self.gated: dict[fx.Node, Tensor] = {}
        self._arrived: dict[fx.Node, Tensor] = {}
        self._owned: set[fx.Node] = set()
        self._maps: dict[fx.Node, Tensor | None] = {}

    def add(
        self, node: fx.Node, signal: Tensor, *, fresh: bool = False, maps: Tensor | None = None
    ) -> None:
        """A signal arrives at a node, where it is added to what arrived before.

        Args:
            fresh: nobody else holds its memory.
            maps: all others are known to be zero, (N, C) bool.
        """
        self._maps[node] = None if node in self._arrived else maps
        if node in self._owned:
            self._arrived[node] += signal
        elif node in self._arrived:
            ours = fresh and self._overwrite
            arrived = self._arrived[node]
            self._arrived[node] = signal.add_(arrived) if ours else arrived + signal
            self.own(node)
        else:
            self._arrived[node] = signal
            if fresh:
                self.own(node)

    def take(self, node: fx.Node) -> Tensor | None:
        """The sum of what arrived, which leaves; None where nothing did."""
        return self._arrived.pop(node, None)

    def maps(self, node: fx.Node) -> Tensor | None:
        """The maps that are not known to be zero in what arrived, (N, C) bool; None for all."""
        return self._maps.get(node)

    def own(self, node: fx.Node) -> None:
        """From now on the memory of this node's signal is nobody else's."""
        if self._overwrite:
            self._owned.add(node)

    def owns(self, node: fx.Node) -> bool:
        """Whether the node's signal may be written over."""
        return node in self._owned
