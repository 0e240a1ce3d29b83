"""What was measured, and as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torchfbi.bench.cases import Case
from torchfbi.bench.measure import Spread
from torchfbi.bench.memory import Memory

SCHEMA = 1


@dataclass(frozen=True)
class Timing:
    """One contender.

    Args:
        name: of the contender.
        seconds: one call.
        ratio: to the float32 forward pass of the same round.
        memory: of one call in a process of its own; None where that failed.
        alive: for ours, the share of the signal's entries that went on at each feature and were
            not zero, from the top layer to the image, averaged over the batch.
        failed: why a peer could not be timed, or "".
    """

    name: str
    seconds: Spread | None = None
    ratio: Spread | None = None
    memory: Memory | None = None
    alive: tuple[tuple[str, float], ...] = ()
    failed: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "seconds": None if self.seconds is None else self.seconds._asdict(),
            "ratio": None if self.ratio is None else self.ratio._asdict(),
            "memory": None if self.memory is None else self.memory._asdict(),
            "alive": [{"layer": layer, "share": share} for layer, share in self.alive],
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Result:
    """All contenders on one case.

    Args:
        case: network and images.
        shape: of the images, (N, C, H, W).
        parameters: of the network.
        capture: seconds until an explainer was ready, for a network that was never captured
            before, though others were.
        again: the same for another explainer of that network: its graph is found again.
        repeats: how often each contender was timed.
        rows: the forward pass first.
    """

    case: Case
    shape: tuple[int, ...]
    parameters: int
    capture: float
    again: float
    repeats: int
    rows: tuple[Timing, ...]

    @property
    def title(self) -> str:
        """Network, weights, images and dtype in one line."""
        weights = "trained" if self.case.trained else "random"
        size = "×".join(map(str, self.shape))
        where = "" if self.case.device == "cpu" else f", {self.case.device}"
        return f"{self.case.model}, {weights} weights, {size}, {self.case.dtype}{where}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        case = asdict(self.case)
        return {
            **case,
            "image": None if self.case.image is None else self.case.image.name,
            "weights": "trained" if self.case.trained else "random",
            "shape": list(self.shape),
            "parameters": self.parameters,
            "capture": {"first": self.capture, "again": self.again},
            "repeats": self.repeats,
            "rows": [row.to_dict() for row in self.rows],
        }


def to_dict(machine: dict[str, Any], results: Iterable[Result]) -> dict[str, Any]:
    """A whole run as plain JSON values."""
    return {
        "schema": SCHEMA,
        "machine": machine,
        "results": [result.to_dict() for result in results],
    }
