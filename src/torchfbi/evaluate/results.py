"""What an evaluation has found so far, in memory and, if there is a folder, in its files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfbi.evaluate import pictures
from torchfbi.evaluate.record import Record
from torchfbi.metrics import Curves

Key = tuple[str, str, str]
"""Suite, method and metric."""

ROWS, PICTURES, CURVES = "rows.jsonl", "pictures.jsonl", "curves.jsonl"

CurvesKey = tuple[str, str, str]
"""Suite, method, and what takes the place of removed patches."""


class Failure(NamedTuple):
    """A method, or one metric of it, that failed on a suite.

    Args:
        suite, method: where.
        metric: which; empty if the method itself gave no maps.
        error: why.
    """

    suite: str
    method: str
    metric: str
    error: str


class Results:
    """Values, failures and pictures by name.

    Args:
        out: a folder whose files are read, and appended to; None keeps all in memory.
        header: what the files belong to.

    Raises:
        SettingsError, FileFormatError: as for ``Record``.
    """

    def __init__(self, out: Path | None, header: dict[str, Any]) -> None:
        self.failures: dict[Key, Failure] = {}
        self.pictures: dict[pictures.Key, str] = {}
        self._values: dict[Key, dict[int, float]] = {}
        self._curves: dict[CurvesKey, dict[int, list[list[float]]]] = {}
        self._rows = None if out is None else Record(out / ROWS, header)
        self._drawn = None if out is None else Record(out / PICTURES, header)
        self._plotted = None if out is None else Record(out / CURVES, header)
        for row in self._rows.rows if self._rows else []:
            if "values" in row:  # failures are tried again
                self._take(row)
        for row in self._drawn.rows if self._drawn else []:
            self.pictures[row["suite"], row["method"], row["scene"]] = row["png"]
        for row in self._plotted.rows if self._plotted else []:
            self._plot(row)

    def holds(self, key: Key, scenes: Iterable[int]) -> bool:
        """Whether these scenes are measured."""
        return set(scenes) <= self._values.get(key, {}).keys()

    def failed(self, suite: str, method: str, metric: str = "") -> bool:
        """Whether the method failed on the suite in this run, or this metric of it."""
        keys = (suite, method, ""), (suite, method, metric)
        return any(key in self.failures for key in keys)

    def add(self, key: Key, scenes: Sequence[int], values: Tensor) -> None:
        """One metric on one batch, (N,)."""
        finite = [value if math.isfinite(value) else None for value in values.tolist()]
        suite, method, metric = key
        where = {"suite": suite, "method": method, "metric": metric}
        row = {**where, "scenes": list(scenes), "values": finite}
        self._take(row)
        if self._rows:
            self._rows.append(row)

    def fail(self, failure: Failure) -> None:
        """A failure; what was measured before it does not count."""
        self.failures[failure.suite, failure.method, failure.metric] = failure
        if self._rows:
            self._rows.append(failure._asdict())

    def draw(self, key: pictures.Key, png: str) -> None:
        """The picture of one map, in base64."""
        self.pictures[key] = png
        if self._drawn:
            suite, method, scene = key
            row = {"suite": suite, "method": method, "scene": scene, "png": png}
            self._drawn.append(row)

    def plot(self, key: CurvesKey, scenes: Sequence[int], curves: Curves) -> None:
        """The curves of one method on one batch."""
        suite, method, kind = key
        known = self._curves.get(key, {})
        for scene, *lines in zip(scenes, *(part.tolist() for part in curves), strict=True):
            row = {"suite": suite, "method": method, "kind": kind, "scene": scene, "lines": lines}
            if scene not in known:
                self._plot(row)
                if self._plotted:
                    self._plotted.append(row)

    def curves(self) -> dict[CurvesKey, Curves]:
        """All curves, in the order of the scenes, each (scenes, steps + 1)."""
        found = {}
        for key, scenes in self._curves.items():
            lines = torch.tensor([scenes[scene] for scene in sorted(scenes)], dtype=torch.float64)
            found[key] = Curves(*lines.unbind(1))
        return found

    def values(self) -> dict[Key, Tensor]:
        """Of everything that did not fail one value a scene, in the order of the scenes."""
        return {
            key: torch.tensor([found[scene] for scene in sorted(found)], dtype=torch.float64)
            for key, found in self._values.items()
            if not self.failed(*key)
        }

    def _plot(self, row: dict[str, Any]) -> None:
        known = self._curves.setdefault((row["suite"], row["method"], row["kind"]), {})
        known[row["scene"]] = row["lines"]

    def _take(self, row: dict[str, Any]) -> None:
        known = self._values.setdefault((row["suite"], row["method"], row["metric"]), {})
        for scene, value in zip(row["scenes"], row["values"], strict=True):
            known[scene] = torch.nan if value is None else value
