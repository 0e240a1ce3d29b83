"""``torchfbi summarize``: what the rows of a data set say, class by class."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from torchfbi.cli import options, report
from torchfbi.cli.batch import engine, overview_of
from torchfbi.system import page

if TYPE_CHECKING:
    from torchfbi.batch import Changes, Summary

LISTED = 20
"""How many strays, and names of rare classes, are printed; the page and the JSON have all."""

SHOWN = 3
"""How many photos are named with a possible shortcut; the page and the JSON have all."""


def summarize(
    out: Annotated[
        Path,
        typer.Argument(
            help="The folder that 'torchfbi batch' wrote.", metavar="OUT", show_default=False
        ),
    ],
    before: Annotated[
        Path | None,
        typer.Option(help="The folder of an earlier run over the same images: what moved since."),
    ] = None,
    open_: options.Open = False,
    json: options.Json = False,
) -> None:
    """Show where the evidence lies in each class, and which images stray from theirs."""
    batch = engine()
    from torchfbi.batch.shortcuts import FEWEST

    summary = batch.summarize(out)
    html = batch.summary_page(batch.Store(out), summary)
    path = out / "summary.html"
    found = None if before is None else batch.changes(before, out)
    if json:
        files = [page.save(html, path), overview_of(batch.Store(out), summary)]
        moved = {} if found is None else {"changes": asdict(found)}
        report.print_json({**summary.to_dict(), **moved, "files": list(map(str, files))})
        return
    report.console.print(f"{summary.images:,} images, {summary.failed:,} failed")
    table = Table()
    table.add_column("class")
    for column in ("images", "support", "quartiles", "rim", "elsewhere", "strays"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in summary.frequent:
        low, median, high = one.fraction
        table.add_row(
            one.label,
            f"{one.images:,}",
            f"{median:.1%}",
            f"{low:.1%}–{high:.1%}",
            f"{one.rim:.0%}",
            f"{one.elsewhere:.2f}",
            f"{len(one.strays)}",
        )
    if summary.frequent:
        report.console.print(table)
    if rare := summary.rare:
        more = f", and {len(rare) - LISTED} more" if len(rare) > LISTED else ""
        report.console.print(
            f"of fewer than {FEWEST} images, {sum(one.images for one in rare)} in all: "
            f"{', '.join(one.label for one in rare[:LISTED])}{more}"
        )
    if any(one.verified for one in summary.classes):
        _print_verified(summary)
    strays = [(stray.distance, one.label, stray) for one in summary.classes for stray in one.strays]
    for distance, label, stray in sorted(strays, key=lambda found: -found[0])[:LISTED]:
        report.console.print(
            f"{stray.path}: {distance:.2f} from {label}, {stray.where}", soft_wrap=True
        )
    if found is not None:
        _print_changes(found)
    files = [page.save(html, path)]  # last: the table is there if it fails
    with report.waiting("drawing the overview"):
        files.append(overview_of(batch.Store(out), summary))
    report.print_files(files)
    options.show(files[-1], open_)


def _print_changes(found: Changes) -> None:
    """What moved since an earlier run."""
    relabelled = sum(one.relabelled for one in found.moved)
    report.console.print(
        f"{found.both:,} images in both runs ({found.new:,} new, {found.gone:,} gone): "
        f"{relabelled:,} have another class now, of {len(found.moved) - relabelled:,} more the "
        "evidence moved."
    )
    for one in found.moved[:LISTED]:
        far = "" if one.distance is None else f", evidence {one.distance:.2f} sides away"
        report.console.print(f"{one.path}: {one.before} -> {one.now}{far}", soft_wrap=True)


def _print_verified(summary: Summary) -> None:
    """How many explanations hold, of all classes and of each frequent one, how much suffices, and
    what looks like a shortcut."""
    found = [one.verified for one in summary.classes if one.verified is not None]
    holds, in_part, not_at_all = (
        sum(getattr(one, what) for one in found) for what in ("holds", "in_part", "not_at_all")
    )
    report.console.print(
        f"verified: {holds:,} hold, {in_part:,} hold in part, {not_at_all:,} do not hold"
    )
    table = Table()
    table.add_column("class")
    for column in ("images", "hold", "in part", "do not", "suffices", "quartiles", "rim", "spread"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in summary.frequent:
        tested = one.verified
        if tested is None:
            continue
        low, median, high = tested.share or (math.nan,) * 3
        table.add_row(
            one.label,
            *(f"{n:,}" for n in (tested.images, tested.holds, tested.in_part, tested.not_at_all)),
            *((f"{median:.1%}", f"{low:.1%}–{high:.1%}") if tested.share else ("none", "")),
            f"{tested.rim:.0%}",
            f"{tested.spread:.2f}",
        )
    if table.row_count:
        report.console.print(table)
    for one in summary.shortcuts:
        if one.verified is not None:
            report.console.print(
                f"possible shortcut: {one.label}: {'; '.join(one.verified.signs)}; see "
                f"{', '.join(one.verified.photos[:SHOWN])}",
                soft_wrap=True,
            )
