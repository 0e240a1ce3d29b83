"""Where ours is not the best, in words made from the numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.evaluate.metric import Metric
from torchfbi.evaluate.table import Entry, Table
from torchfbi.metrics import bootstrap_difference


class Defeat(NamedTuple):
    """A metric by which another method is ahead of ours.

    Args:
        metric: which.
        ours, theirs: the entries of both.
        control: whether the other one is a control.
        clear: whether the 95 % bootstrap interval of the difference over the same scenes
            excludes 0; otherwise it could be chance.
    """

    metric: Metric
    ours: Entry
    theirs: Entry
    control: bool
    clear: bool


def ours(table: Table) -> str | None:
    """The first of our own methods, or None."""
    return next((method.name for method in table.methods if method.family == "fbi"), None)


def defeats(table: Table, suite: str) -> list[Defeat]:
    """By which metrics ours is not the best on a suite, and who is."""
    own = ours(table)
    controls = {method.name for method in table.methods if method.family == "control"}
    found = []
    for metric in table.columns(suite):
        if own is None or metric.better == "neither":
            continue
        mine = table.entry(suite, own, metric.name)
        column = [table.entry(suite, m.name, metric.name) for m in table.methods]
        best = next((entry for entry in column if entry.best), None)
        if not mine.best and best is not None:
            key = suite, best.method, metric.name
            clear = math.isnan(mine.mean) or _clear(
                metric, table.values[key], table.values[suite, own, metric.name]
            )
            found.append(Defeat(metric, mine, best, best.method in controls, clear))
    return found


def sentence(table: Table, suite: str) -> str:
    """Where ours is not the best on a suite; empty where ours is not among the methods."""
    own = ours(table)
    ranked = [metric for metric in table.columns(suite) if metric.better != "neither"]
    if own is None or not ranked:
        return ""
    lost = defeats(table, suite)
    if not lost:
        return f"{own} is the best by all {len(ranked)} metrics that rank."
    parts = "; ".join(map(_phrase, lost))
    return f"{own} is not the best by {len(lost)} of {len(ranked)} metrics that rank: {parts}."


def _phrase(defeat: Defeat) -> str:
    mine = number(defeat.ours.mean) if not defeat.ours.error else "failed"
    who = f"{defeat.theirs.method} (a control)" if defeat.control else defeat.theirs.method
    doubt = "" if defeat.clear else ", which could be chance"
    title = defeat.metric.title
    return f"{title}, where {who} has {number(defeat.theirs.mean)} against {mine}{doubt}"


def number(value: float) -> str:
    """Two decimals with a proper minus; three digits where it is large."""
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
    return "–" if value != value else text.replace("-0.00", "0.00").replace("-", "−")


def _clear(metric: Metric, theirs: Tensor, mine: Tensor) -> bool:
    """Scene by scene: near 0 is counted by the distance from it."""
    ahead, behind = (
        torch.tensor([metric.score(value) for value in values.tolist()], dtype=torch.float64)
        for values in (theirs, mine)
    )
    return bootstrap_difference(ahead, behind).low > 0
