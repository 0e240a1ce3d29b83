"""Suites x methods x metrics, batch by batch; whatever is finished is kept at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from torchfbi.errors import first_line
from torchfbi.evaluate import pictures, registry
from torchfbi.evaluate.benchmark import Batch, Suite
from torchfbi.evaluate.context import Context, Subject
from torchfbi.evaluate.metric import Metric
from torchfbi.evaluate.naming import check_unique, named
from torchfbi.evaluate.peers import Method
from torchfbi.evaluate.record import header
from torchfbi.evaluate.results import Failure, Results
from torchfbi.evaluate.table import Table
from torchfbi.method.settings import Settings

DEFAULT_METHODS = (
    "fbi",
    "guided-backprop",
    "rectgrad",
    "integrated-gradients",
    "grad-cam",
    "random",
    "centre",
    "edge",
    "gate",
    "edge-x-gate",
)
"""Ours, a few that take about as long, and all controls."""


class Progress(NamedTuple):
    """How far an evaluation is.

    Args:
        done, total: batches of one metric for one method.
        suite, method, metric: what was done last; empty at the start.
    """

    done: int
    total: int
    suite: str = ""
    method: str = ""
    metric: str = ""


def evaluate(
    suites: Suite | Sequence[Suite],
    methods: Sequence[str | Settings | Method] = DEFAULT_METHODS,
    metrics: Sequence[str] = registry.DEFAULTS,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    *,
    seed: int = 0,
    batch: int = 8,
) -> Table:
    """Judge attribution methods by metrics, on scenes whose evidence is known.

    >>> suite = load_suite("cutouts", "efficientnet-lite0", count=20)
    >>> table = evaluate(suite, ["fbi", "grad-cam", "random"], ["energy-in-mask", "pointing"])
    >>> table.entry("cutouts", "fbi", "pointing").mean

    A method that fails on a network is listed in the table's ``failures``, and so is a metric that
    fails for a method; the rest goes on. Failures are tried again by the next call.

    Args:
        suites: with the networks that they are for, as ``torchfbi.evaluate.benchmark`` makes them.
        methods: as for ``peers.find``. A ``Method`` of your own is known by its name.
        metrics: names of ``METRICS``; one is measured on the scenes that it applies to.
        out: a folder where each finished batch is appended to ``rows.jsonl`` at once. What it
            holds already is not measured again: a call that was stopped goes on there. Pictures
            and curves for the report go into ``pictures.jsonl`` and ``curves.jsonl``.
        progress: called at the start and after every batch of every metric.
        seed: of all that is random in methods and metrics.
        batch: how many scenes at a time; the numbers do not depend on it but for rounding.

    Raises:
        SettingsError: an unknown method or metric, none of them, two methods or two suites of one
            name, or a folder that holds results for other suites or settings.
        FileFormatError: a file in that folder is damaged.
    """
    chosen = (suites,) if isinstance(suites, Suite) else tuple(suites)
    judged, wanted = tuple(map(named, methods)), registry.find(metrics)
    check_unique("suite", [suite.name for suite in chosen])
    check_unique("method", [method.name for method in judged])
    results = Results(None if out is None else Path(out), header(chosen, seed))
    run = _Run(results, judged, wanted, progress or (lambda step: None), batch)
    run(chosen, seed)
    asked = {(s.name, m.name, metric.name) for s in chosen for m in judged for metric in wanted}
    return Table(
        suites=chosen,
        methods=judged,
        metrics=wanted,
        values={key: found for key, found in results.values().items() if key in asked},
        failures=tuple(results.failures.values()),
        seed=seed,
        pictures=results.pictures,
        curves=results.curves(),
    )


@dataclass(eq=False)
class _Run:
    results: Results
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    progress: Callable[[Progress], None]
    batch: int

    def __call__(self, suites: tuple[Suite, ...], seed: int) -> None:
        self.done = 0
        parts = (len(self._metrics(batch)) for s in suites for batch in s.batches(self.batch))
        self.total = sum(parts) * len(self.methods)
        self.progress(Progress(0, self.total))
        for suite in suites:
            subject = Subject(suite, seed)
            shown = pictures.shown(suite, len(suites))
            for method in self.methods:
                for batch in suite.batches(self.batch):
                    self._judge(Context(subject, method, batch), shown)

    def _metrics(self, batch: Batch) -> list[Metric]:
        return [metric for metric in self.metrics if metric.applies(batch)]

    def _judge(self, context: Context, shown: tuple[int, ...]) -> None:
        """All metrics of one method on one batch, and the pictures of its maps."""
        suite, method = context.subject.suite.name, context.method.name
        scenes, results = context.batch.indices, self.results
        missing = {
            metric.name
            for metric in self._metrics(context.batch)
            if not results.holds((suite, method, metric.name), scenes)
        }
        undrawn = [i for i in scenes if i in shown and (suite, method, i) not in results.pictures]
        if (missing or undrawn) and not results.failed(suite, method):
            # Computed first, so that their failure is the method's and not a metric's.
            self._try("", context, lambda: context.maps)
        if not results.failed(suite, method):
            for place, scene in enumerate(scenes):
                if scene in undrawn:
                    drawn = pictures.over(context.subject.suite.scenes[scene], context.maps[place])
                    results.draw((suite, method, scene), drawn)
        for metric in self._metrics(context.batch):
            key = suite, method, metric.name
            if metric.name in missing and not results.failed(*key):
                found = self._try(metric.name, context, partial(metric.measure, context))
                if found is not None:
                    results.add(key, scenes, found)
                    for kind, curves in context.plotted().items():
                        results.plot((suite, method, kind), scenes, curves)
            self.done += 1
            self.progress(Progress(self.done, self.total, *key))

    def _try(self, metric: str, context: Context, work: Callable[[], Tensor]) -> Tensor | None:
        try:
            return work()
        except Exception as error:  # of a library or of the user's own network: a row as well
            names = context.subject.suite.name, context.method.name
            self.results.fail(Failure(*names, metric, first_line(error)))
            return None
