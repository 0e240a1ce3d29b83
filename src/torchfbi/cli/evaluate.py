"""``torchfbi evaluate``: methods judged by metrics, on the shipped scenes or on your own photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from torchfbi import plot
from torchfbi.cli import options, report
from torchfbi.cli.compare import Methods, Seed, split
from torchfbi.errors import ModelError, SettingsError
from torchfbi.evaluate import (
    DEFAULT_METHODS,
    METRICS,
    Metric,
    Progress,
    pictures,
    ranking,
    registry,
    verdict,
)
from torchfbi.evaluate import Table as Numbers
from torchfbi.evaluate import evaluate as run_evaluate
from torchfbi.evaluate import report as page
from torchfbi.evaluate.benchmark import SUITES, Suite, folder, grids, load_suite, photos
from torchfbi.evaluate.naming import named
from torchfbi.evaluate.registry import DEFAULTS, find
from torchfbi.models import Model

DEFAULT_SUITES = ["cutouts", "grid2"]

PHOTOS = "photos"
"""The suite that is made from a user's photos."""


def evaluate(
    network: Model,
    directory: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of photos, in place of the suites; with --suites photos a folder whose "
            "names say the classes, or a CSV file with the columns path and class.",
            metavar="[DIR]",
            show_default=False,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Of the photos: a COCO JSON file, or a folder of VOC XML files or mask PNGs. "
            "Looked for in DIR by default.",
            show_default=False,
        ),
    ] = None,
    methods: Methods = list(DEFAULT_METHODS),  # noqa: B006  # typer copies it
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            help=f"Any of {', '.join(METRICS)}. By default those that fit.",
            show_default=False,
        ),
    ] = None,
    suites: Annotated[
        list[str],
        typer.Option(
            "--suites",
            help=f"Any of {', '.join(SUITES)}; or photos, with DIR: photos of known classes that "
            "the network gets right.",
        ),
    ] = DEFAULT_SUITES,
    count: Annotated[
        int, typer.Option(help="How many photos, scenes or grids of each suite.", min=1)
    ] = 20,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(help="Scenes at a time.", min=1)] = 8,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The folder for the results, where it also goes on."),
    ] = Path("fbi-out/evaluate"),
    open_: options.Open = False,
    json: options.Json = False,
) -> None:
    """Judge methods by metrics: a table with intervals, CSV, JSON and a report in HTML.

    The same command goes on where it was stopped.
    """
    of_photos = PHOTOS in split(suites)
    if of_photos and (directory is None or split(suites) != [PHOTOS] or annotations is not None):
        raise SettingsError(
            "the suite photos is made from your own photos, without annotations: give DIR, and no "
            "other suite."
        )
    judged = split(methods)
    wanted = split(metrics) if metrics else list(registry.PHOTOS if of_photos else DEFAULTS)
    for method in judged:  # before the scenes are made, which takes a while
        named(method)
    find(wanted)
    refused: dict[str, str] = {}
    if of_photos and directory is not None:
        made, refused = _photos(directory, network, count, seed)
    elif directory is not None:
        made = [folder(directory, network, annotations, count)]
    elif annotations is not None:
        raise SettingsError("--annotations belong to a folder of photos: give DIR.")
    else:
        made, refused = _suites(split(suites), network, count, seed)
    with _progress() as progress:
        table = run_evaluate(made, judged, wanted, out, progress, seed=seed, batch=batch)
    files = [*table.save(out), page.save(table, out / "report.html"), *_curves(table, out)]
    if json:
        report.print_json({**table.to_dict(), "files": [str(file) for file in files]})
    else:
        for suite in made:
            _print(table, suite)
        report.print_files(files)
    options.show(out / "report.html", open_)
    raise typer.Exit(1 if _complain(table, refused) else 0)


def _photos(
    path: Path, network: Model, count: int, seed: int
) -> tuple[list[Suite], dict[str, str]]:
    """The photos, and grids of them unless these cannot be made, with the reason."""
    alone = photos(path, network, count, seed)
    try:
        together = grids(network, 2, max(1, count // 4), seed, tiles=alone.scenes)
    except ModelError as error:  # too few classes among them
        report.complain(f"no grids of them: {error}")
        return [alone], {}
    return [alone, replace(together, name="photos-grid2")], {}


def _curves(table: Numbers, out: Path) -> list[Path]:
    """The curves as pictures, a file a suite and kind of removal."""
    files = []
    for suite in table.suites:
        for kind in pictures.REMOVED:
            figure = pictures.curves(table, suite, kind)
            if figure is not None:
                files.append(out / f"curves-{suite.name}-{kind}.png")
                plot.save(figure, files[-1])
    return files


def _suites(
    names: list[str], network: Model, count: int, seed: int
) -> tuple[list[Suite], dict[str, str]]:
    """The suites that can be made for this network, and why the others cannot.

    Raises:
        ModelError: none can.
    """
    made: list[Suite] = []
    refused: dict[str, str] = {}
    for name in sorted(names, key=SUITES.__contains__):  # unknown names first: they are refused
        try:
            made.append(load_suite(name, network, count, seed))
        except ModelError as error:
            refused[name] = str(error)
    if refused and not made:
        raise ModelError(next(iter(refused.values())))
    return made, refused


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    with report.bar() as bar:
        task = bar.add_task("", total=None)

        def show(step: Progress) -> None:
            words = " · ".join(filter(None, (step.suite, step.method, step.metric)))
            bar.update(task, completed=step.done, total=step.total, description=words)

        yield show


def _complain(table: Numbers, refused: dict[str, str]) -> bool:
    """List on standard error what is missing from the table; whether anything is."""
    lines = [f"suite {name}: {error}" for name, error in refused.items()]
    for suite in table.suites:
        lines += [f"{suite.name}: {text}" for text in suite.refused]
    for failure in table.failures:
        what = " ".join(filter(None, (failure.method, failure.metric)))
        lines.append(f"{failure.suite}, {what}: {failure.error}")
    if lines:
        report.complain(f"{len(lines)} failed:")
    for line in lines:
        report.complain(f"  {line}")
    return bool(lines)


NAMES, CELL = 22, 15
"""Letters that the methods' names and a column of numbers take."""


def _print(table: Numbers, suite: Suite) -> None:
    """The suite's numbers, in several tables where one would be too wide."""
    columns = table.columns(suite.name)
    width = max(1, (report.console.width - NAMES) // CELL)
    for start in range(0, len(columns), width):
        report.console.print(_table(table, suite, columns[start : start + width], start == 0))
    if metric := ranking.headline(table, suite.name):
        report.console.print(_ranking(table, suite, metric))
    if sentence := verdict.sentence(table, suite.name):
        report.console.print(sentence, soft_wrap=True)
    report.console.print()


def _table(table: Numbers, suite: Suite, columns: list[Metric], first: bool) -> Table:
    title = f"{suite.name}: {len(suite)} scenes, {suite.model.name}" if first else None
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("method")
    drawn.add_column("mean rank" if first else "", justify="right")
    ranks = table.mean_ranks(suite.name)
    for metric in columns:
        heading = f"{metric.title} {page.ARROWS[metric.better]}"
        drawn.add_column(heading, justify="right")
    for method in table.ordered(suite.name):
        name = Text(method.name)
        if method.family == "control":
            name.append(" (control)", "dim")
        rank = verdict.number(ranks[method.name]) if first and method.name in ranks else ""
        drawn.add_row(name, rank, *(_cell(table, suite, method.name, m) for m in columns))
    return drawn


def _ranking(table: Numbers, suite: Suite, metric: str) -> Table:
    drawn = Table(title=f"{metric}, controls and all", title_justify="left")
    drawn.add_column("")
    drawn.add_column("method")
    drawn.add_column(metric, justify="right")
    drawn.add_column("ours is ahead by (95%)", justify="right")
    for place, ranked in enumerate(ranking.ranking(table, suite.name, metric), 1):
        name = Text(ranked.method.name)
        if ranked.method.family == "control":
            name.append(" (control)", "dim")
        ahead = ""
        if ranked.ahead is not None:
            mean, low, high = map(verdict.number, ranked.ahead)
            ahead = f"{mean}  [{low}, {high}]"
        drawn.add_row(str(place), name, verdict.number(ranked.entry.mean), ahead)
    return drawn


def _cell(table: Numbers, suite: Suite, method: str, metric: Metric) -> Text:
    entry = table.entry(suite.name, method, metric.name)
    if entry.error:
        return Text("failed", "dim")
    return Text(verdict.number(entry.mean), "bold" if entry.best else "")
