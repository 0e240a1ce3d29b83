"""All methods by one metric, controls among them, and how sure it is that ours is ahead of each."""

from __future__ import annotations

from typing import NamedTuple

from torchfbi.evaluate.peers import Method
from torchfbi.evaluate.table import Entry, Table
from torchfbi.evaluate.verdict import ours
from torchfbi.metrics import Interval, bootstrap_difference

HEADLINES = ("srg", "contrastive-srg")
"""Metrics by which suites are ranked in words, the first that was measured."""


class Ranked(NamedTuple):
    """One method's place.

    Args:
        method: which.
        entry: its mean and interval.
        ahead: ours less this one's over the same scenes, with its 95 % bootstrap interval; None
            for ours itself, or where it is not among the methods.
    """

    method: Method
    entry: Entry
    ahead: Interval | None


def headline(table: Table, suite: str) -> str | None:
    """The metric of ``HEADLINES`` that was measured on the suite, or None."""
    measured = {metric.name for metric in table.columns(suite)}
    return next((name for name in HEADLINES if name in measured), None)


def ranking(table: Table, suite: str, metric: str) -> list[Ranked]:
    """The methods by the metric's mean, the largest first; those that failed are left out."""
    own = ours(table)
    found = []
    for method in table.methods:
        entry = table.entry(suite, method.name, metric)
        if entry.error or not entry.scenes:
            continue
        ahead = None
        if own is not None and method.name != own and (suite, own, metric) in table.values:
            mine, theirs = (table.values[suite, name, metric] for name in (own, method.name))
            ahead = bootstrap_difference(mine, theirs)
        found.append(Ranked(method, entry, ahead))
    return sorted(found, key=lambda ranked: -ranked.entry.mean)
