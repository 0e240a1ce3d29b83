"""An evaluation as one HTML page that needs nothing else: no script, no file, no connection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from torchfbi.evaluate import pictures, verdict
from torchfbi.evaluate.benchmark import Scene, Suite
from torchfbi.evaluate.peers import Method
from torchfbi.evaluate.ranking import Ranked, headline, ranking
from torchfbi.evaluate.table import Entry, Table
from torchfbi.system import page
from torchfbi.system.versions import versions

ARROWS = {"higher": "↑", "lower": "↓", "zero": "→ 0", "neither": ""}
"""What is good, for the columns' headings."""

GOOD = {
    "higher": "High is good.",
    "lower": "Low is good.",
    "zero": "Near 0 is good.",
    "neither": "It describes a map and ranks nobody.",
}


class Shown(NamedTuple):
    """A scene with the maps of all methods that have one.

    Args:
        scene: which.
        target: the name of the probed class.
        picture: the image, with its object outlined.
        maps: method and picture, the best by its mean rank first.
    """

    scene: Scene
    target: str
    picture: str
    maps: list[tuple[Method, str]]


def html(table: Table) -> str:
    """The page.

    It has, for each suite, the methods by their mean rank with means and intervals; where ours is
    not the best; up to ``pictures.SCENES`` scenes with each method's map; and what the numbers
    mean and where they come from.
    """
    return page.render(
        "torchfbi.evaluate",
        "report.html",
        {"number": verdict.number},
        table=table,
        models=list(dict.fromkeys(suite.model.name for suite in table.suites)),
        sentences={suite.name: verdict.sentence(table, suite.name) for suite in table.suites},
        curves={suite.name: curves(table, suite) for suite in table.suites},
        rankings={suite.name: rankings(table, suite) for suite in table.suites},
        gallery={suite.name: gallery(table, suite) for suite in table.suites},
        arrows=ARROWS,
        good=GOOD,
        total=sum(map(len, table.suites)),
        remark=remark,
        settings=settings(table),
    )


def save(table: Table, path: str | os.PathLike[str]) -> Path:
    """Write the page, and make its folder; returns its path."""
    return page.save(html(table), path)


def curves(table: Table, suite: Suite) -> list[str]:
    """The figures of the suite's curves, as PNG in base64."""
    figures = [pictures.curves(table, suite, kind) for kind in pictures.REMOVED]
    return [pictures.page(figure) for figure in figures if figure is not None]


def rankings(table: Table, suite: Suite) -> list[Ranked]:
    """The suite's methods by its headline; none where that was not measured."""
    metric = headline(table, suite.name)
    return [] if metric is None else ranking(table, suite.name, metric)


def gallery(table: Table, suite: Suite) -> list[Shown]:
    """The scenes of a suite of which there are pictures."""
    found = []
    for index, scene in enumerate(suite.scenes):
        maps = [
            (method, table.pictures[suite.name, method.name, index])
            for method in table.ordered(suite.name)
            if (suite.name, method.name, index) in table.pictures
        ]
        if maps:
            label = suite.model.labels[scene.target]
            found.append(Shown(scene, label, pictures.of(scene), maps))
    return found


def remark(entry: Entry) -> str:
    """How many scenes a cell stands for, and its rank."""
    parts = [f"{entry.scenes} scenes"]
    if entry.undefined:
        parts.append(f"not defined for {entry.undefined} more")
    if entry.rank is not None:
        parts.append(f"rank {entry.rank:g}")
    return ", ".join(parts)


def settings(table: Table) -> dict[str, str]:
    """How the numbers came about."""
    return {
        "seed": str(table.seed),
        "intervals": "95 %, percentile bootstrap over the scenes",
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
