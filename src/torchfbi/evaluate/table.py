"""The numbers of an evaluation: means, how sure they are, and who is ahead."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfbi.evaluate.benchmark import Suite
from torchfbi.evaluate.metric import Metric
from torchfbi.evaluate.peers import Method
from torchfbi.evaluate.results import CurvesKey, Failure, Key
from torchfbi.metrics import Curves, Interval, bootstrap_interval
from torchfbi.metrics.ranks import average_ranks
from torchfbi.system.versions import versions

SCHEMA = 1

COLUMNS = (
    "suite", "method", "family", "metric", "better", "mean", "low", "high", "scenes", "undefined",
    "rank", "best", "error",
)  # fmt: skip

_NO_MEAN = Interval(math.nan, math.nan, math.nan)


class Entry(NamedTuple):
    """One method by one metric on one suite.

    Args:
        suite, method, metric: the names.
        mean, low, high: over the scenes, with its 95 % bootstrap interval; NaN if it failed, or
            is defined for no scene.
        scenes: how many have a value.
        undefined: to how many the metric applies but is not defined, as for an empty map.
        rank: 1 for the best mean of the suite; methods that tie share the mean of their ranks, and
            those without a mean the last ones. None where nobody is ranked.
        best: whether no other mean is better; False where nobody is ranked.
        error: why there is no mean; empty otherwise.
    """

    suite: str
    method: str
    metric: str
    mean: float
    low: float
    high: float
    scenes: int
    undefined: int
    rank: float | None = None
    best: bool = False
    error: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """What ``evaluate`` found.

    Args:
        suites: where.
        methods: which were judged, controls among them.
        metrics: by what.
        values: by suite, method and metric one value a scene, (scenes,) float64, in the order of
            the suite's scenes to which the metric applies; NaN where it is not defined.
        failures: what has no values, and why.
        seed: of all that was random.
        pictures: maps for the report, as PNG in base64.
        curves: by suite, method and kind of removal, a row a scene.
    """

    suites: tuple[Suite, ...]
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    values: Mapping[Key, Tensor]
    failures: tuple[Failure, ...] = ()
    seed: int = 0
    pictures: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    curves: Mapping[CurvesKey, Curves] = field(default_factory=dict)

    @cached_property
    def entries(self) -> dict[Key, Entry]:
        """All entries by suite, method and metric, in the table's order."""
        found = {}
        for suite in self.suites:
            for metric in self.metrics:
                for entry in self._ranked(metric, self._column(suite.name, metric)):
                    found[entry.suite, entry.method, entry.metric] = entry
        return found

    def entry(self, suite: str, method: str, metric: str) -> Entry:
        """One of ``entries``; a KeyError where the metric does not apply."""
        return self.entries[suite, method, metric]

    def columns(self, suite: str) -> list[Metric]:
        """The metrics that apply to a scene of the suite."""
        measured = {metric for where, _, metric in self.entries if where == suite}
        return [metric for metric in self.metrics if metric.name in measured]

    def mean_ranks(self, suite: str) -> dict[str, float]:
        """The mean of each method's ranks, the best method first.

        Methods that failed on the suite are left out; all are where no metric ranks.
        """
        ranks = {}
        for method in self.methods:
            entries = [self.entries[suite, method.name, m.name] for m in self.columns(suite)]
            own = [entry.rank for entry in entries if entry.rank is not None]
            if own and self.failure(suite, method.name) is None:
                ranks[method.name] = sum(own) / len(own)
        return dict(sorted(ranks.items(), key=lambda item: item[1]))

    def ordered(self, suite: str) -> list[Method]:
        """The methods by their mean rank; those without one last."""
        ranks = self.mean_ranks(suite)
        return sorted(self.methods, key=lambda method: ranks.get(method.name, math.inf))

    def failure(self, suite: str, method: str, metric: str = "") -> Failure | None:
        """Why the method, or this metric of it, failed on the suite."""
        named = [f for f in self.failures if (f.suite, f.method) == (suite, method)]
        return next((f for f in named if f.metric in ("", metric)), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything but values and pictures, as plain JSON values; NaN becomes None."""
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "versions": versions(),
            "suites": [
                {
                    "name": suite.name,
                    "description": suite.description,
                    "model": suite.model.name,
                    "scenes": len(suite),
                    "refused": list(suite.refused),
                    "mean_ranks": self.mean_ranks(suite.name),
                }
                for suite in self.suites
            ],
            "methods": [
                {"name": m.name, "family": m.family, "reduction": m.reduction, "source": m.source}
                for m in self.methods
            ],
            "metrics": [
                {
                    "name": metric.name,
                    "better": metric.better,
                    "needs": metric.needs,
                    "meaning": metric.meaning,
                    "source": metric.source,
                }
                for metric in self.metrics
            ],
            "entries": [
                {name: _plain(value) for name, value in entry._asdict().items()}
                for entry in self.entries.values()
            ],
            "failures": [failure._asdict() for failure in self.failures],
        }

    def to_csv(self) -> str:
        """The entries as CSV, a line each after the line of ``COLUMNS``."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        family = {method.name: method.family for method in self.methods}
        better = {metric.name: metric.better for metric in self.metrics}
        for entry in self.entries.values():
            row = {name: _plain(value) for name, value in entry._asdict().items()}
            writer.writerow({**row, "family": family[entry.method], "better": better[entry.metric]})
        return buffer.getvalue()

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write ``table.csv`` and ``table.json``; returns their paths."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        contents = {
            root / "table.csv": self.to_csv(),
            root / "table.json": json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n",
        }
        for path, content in contents.items():
            path.write_text(content, encoding="utf-8")
        return list(contents)

    def __repr__(self) -> str:
        scenes = sum(map(len, self.suites))
        return (
            f"Table({len(self.methods)} methods x {len(self.metrics)} metrics on {scenes} scenes"
            f"{f', {len(self.failures)} failures' if self.failures else ''})"
        )

    def _column(self, suite: str, metric: Metric) -> list[Entry]:
        """All methods' entries, not ranked yet; none where the metric does not apply."""
        column = []
        for method in self.methods:
            key = suite, method.name, metric.name
            if key in self.values:
                values = self.values[key]
                undefined = int(values.isnan().sum())
                interval = bootstrap_interval(values)
                column.append(Entry(*key, *interval, len(values) - undefined, undefined))
            elif failure := self.failure(*key):
                column.append(Entry(*key, *_NO_MEAN, 0, 0, error=failure.error))
        return column if any(not entry.error for entry in column) else []

    def _ranked(self, metric: Metric, column: list[Entry]) -> list[Entry]:
        if metric.better == "neither" or not column:
            return column
        scores = [
            -math.inf if math.isnan(entry.mean) else metric.score(entry.mean) for entry in column
        ]
        ranks = average_ranks(-torch.tensor([scores], dtype=torch.float64))[0].tolist()
        top = max(scores)
        return [
            entry._replace(rank=rank, best=score == top > -math.inf)
            for entry, rank, score in zip(column, ranks, scores, strict=True)
        ]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
