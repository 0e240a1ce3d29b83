"""``torchfbi compare``: several methods side by side, as in the paper's Table 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from torchfbi import plot
from torchfbi.cli import options, report
from torchfbi.errors import TargetError
from torchfbi.evaluate.compare import DEFAULT_METHODS, Comparison
from torchfbi.evaluate.compare import compare as run_compare
from torchfbi.models import Model
from torchfbi.models.images import Photo

Methods = Annotated[
    list[str],
    typer.Option(
        "--methods",
        help="--methods fbi grad-cam edge: names of methods and controls, and fbi:PRESET.",
    ),
]
Seed = Annotated[int, typer.Option(help="Of what is random in methods.", min=0)]


def compare(
    images: options.Images,
    network: Model,
    drawing: options.Drawing,
    methods: Methods = list(DEFAULT_METHODS),  # noqa: B006  # typer copies it
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="The classes to ask for, each in a row: numbers, names, or top2 for the second "
            "most probable one; parted by commas, or the option several times. The most probable "
            "one by default.",
            show_default=False,
        ),
    ] = None,
    over_photo: Annotated[
        bool, typer.Option("--over-photo", help="Draw all maps over the photo, signals as well.")
    ] = False,
    seed: Seed = 0,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Test on each image whether each method's map holds."),
    ] = False,
) -> None:
    """Draw what several methods say about the same images and classes."""
    photos: list[Photo] = []
    unread = report.each(images, lambda image: photos.append(Photo.read(image)))
    if not photos:
        raise typer.Exit(2)
    targets = None if target is None else split(target)
    if targets == []:
        raise TargetError("--target names no class.")
    with report.waiting("asking the methods"):
        found = run_compare(
            network, photos, split(methods), targets or [None], seed=seed, verify=verify
        )
    files = _write(found, drawing, over_photo)
    if drawing.json:
        failed = [{"photo": str(path), "error": text} for path, text in unread.items()]
        listed = [str(file) for file in files]
        report.print_json({**found.to_dict(), "failed": failed, "files": listed})
    else:
        _print(found)
        report.print_files(files)
    if found.failures:
        report.complain(f"{len(found.failures)} of {len(found.methods)} methods failed:")
        for method, error in found.failures.items():
            report.complain(f"  {method}: {error}")
    raise typer.Exit(1 if found.failures or unread else 0)


def split(values: list[str]) -> list[str]:
    """Values parted by commas as well as given one by one."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _write(found: Comparison, drawing: options.Drawing, over_photo: bool) -> list[Path]:
    """The figure, the numbers and the maps beside each other; returns their paths."""
    figure = drawing.out / f"compare.{drawing.format}"
    drawn = found.plot(over_photo=over_photo, dark=drawing.dark)
    plot.save(drawn, figure, dpi=drawing.dpi)
    numbers, arrays = figure.with_suffix(".json"), figure.with_suffix(".npz")
    numbers.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(arrays, **found.arrays())  # type: ignore[arg-type]  # stub of numpy
    return [figure, numbers, arrays]


def _print(found: Comparison) -> None:
    """The support of every map as a table."""
    table = Table(title=Text(found.model), title_justify="left")
    for column in ("image", "asked for", "method"):
        table.add_column(column)
    table.add_column("support", justify="right")
    verified = any(cell.verdict for row in found.rows for cell in row.cells)
    if verified:
        table.add_column("suffices", justify="right")
        table.add_column("verified")
    for row in found.to_dict()["rows"]:
        asked = Text(f"{row['label']} ({row['probability']:.1%})")
        where = [Text(row["photo"]), asked]
        for cell in row["methods"]:
            support = "failed" if cell["error"] else f"{cell['support']:.1%}"
            table.add_row(*where, Text(cell["method"]), support, *_verdict(cell["verdict"]))
            where = [Text(""), Text("")]
        table.add_section()
    report.console.print(table)


def _verdict(found: dict[str, Any] | None) -> list[str]:
    """How large a part suffices by this map, and whether it holds."""
    if found is None:
        return []
    part = found["sufficient"]
    return ["" if part is None else f"{part['share']:.1%}", found["ruling"]]
