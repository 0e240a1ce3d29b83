"""``torchfbi compare``: several methods side by side, as in the paper's Table 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from torchfbi.cli import options, report
from torchfbi.errors import TargetError

if TYPE_CHECKING:
    from torchfbi.evaluate.compare import Comparison
    from torchfbi.models.images import Photo
    from torchfbi.models.source import Source

DEFAULT_METHODS = ["fbi", "guided-backprop", "grad-cam"]

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
    networks: dict[str, Source],
    drawing: options.Drawing,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            help="--methods fbi grad-cam edge: names of methods and controls, and fbi:PRESET. By "
            f"default {', '.join(DEFAULT_METHODS)}; fbi alone where there are several networks.",
            show_default=False,
        ),
    ] = None,
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
    """Draw what several methods, or networks, say about the same images and classes.

    Two networks side by side: --model BEFORE --model AFTER.
    """
    from torchfbi.evaluate.compare import compare as run_compare
    from torchfbi.evaluate.compare import side_by_side
    from torchfbi.models.images import Photo

    photos: list[Photo] = []
    unread = report.each(images, lambda image: photos.append(Photo.read(image)))
    if not photos:
        raise typer.Exit(2)
    targets = None if target is None else split(target)
    if targets == []:
        raise TargetError("--target names no class.")
    asked = split(methods) if methods else DEFAULT_METHODS[: 3 if len(networks) == 1 else 1]
    apart = []
    for source in networks.values():
        network = source.load()
        report.warn(network.warnings())
        with report.waiting(f"asking {network.name}"):
            apart.append(
                run_compare(network, photos, asked, targets or [None], seed=seed, verify=verify)
            )
    found = apart[0] if len(apart) == 1 else side_by_side(apart)
    files = _write(found, apart, drawing, over_photo)
    drawing.show(files[0])
    if drawing.json:
        failed = [{"photo": str(path), "error": text} for path, text in unread.items()]
        listed = [str(file) for file in files]
        report.print_json({**found.to_dict(), "failed": failed, "files": listed})
    else:
        _print(found)
        report.print_files(files)
    report.warn(
        [
            f"{cell.method}: nothing exceeds its tau in {row.photo}: {cell.tau:g} was taken, which "
            "fits this network."
            for row in found.rows
            for cell in row.cells
            if cell.tau is not None
        ]
    )
    if found.failures:
        report.complain(f"{len(found.failures)} of {len(found.methods)} methods failed:")
        for method, error in found.failures.items():
            report.complain(f"  {method}: {error}")
    raise typer.Exit(1 if found.failures or unread else 0)


def split(values: list[str]) -> list[str]:
    """Values parted by commas as well as given one by one."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _write(
    found: Comparison, apart: list[Comparison], drawing: options.Drawing, over_photo: bool
) -> list[Path]:
    """The figure, the numbers and each network's maps beside each other; returns their paths."""
    import numpy as np

    from torchfbi import plot

    figure = drawing.out / f"compare.{drawing.format}"
    drawn = found.plot(over_photo=over_photo, dark=drawing.dark)
    plot.save(drawn, figure, dpi=drawing.dpi)
    numbers = figure.with_suffix(".json")
    numbers.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    files = [figure, numbers]
    for number, one in enumerate(apart, start=1):
        name = "compare.npz" if len(apart) == 1 else f"compare-{number}.npz"
        files.append(drawing.out / name)
        np.savez_compressed(files[-1], **one.arrays())  # type: ignore[arg-type]  # numpy's stub
    return files


def _print(found: Comparison) -> None:
    """The support of every map as a table."""
    table = Table(title=found.model, title_justify="left")
    for column in ("image", "asked for", "method"):
        table.add_column(column)
    table.add_column("support", justify="right")
    verified = any(cell.verdict for row in found.rows for cell in row.cells)
    if verified:
        table.add_column("suffices", justify="right")
        table.add_column("verified")
    for row in found.to_dict()["rows"]:
        by = f" by {row['model']}" if row["model"] != found.model else ""
        asked = f"{row['label']} ({row['probability']:.1%}){by}"
        where = [row["photo"], asked]
        for cell in row["methods"]:
            support = "failed" if cell["error"] else f"{cell['support']:.1%}"
            table.add_row(*where, cell["method"], support, *_verdict(cell["verdict"]))
            where = ["", ""]
        table.add_section()
    report.console.print(table)


def _verdict(found: dict[str, Any] | None) -> list[str]:
    """How large a part suffices by this map, and whether it holds."""
    if found is None:
        return []
    part = found["sufficient"]
    return ["" if part is None else f"{part['share']:.1%}", found["ruling"]]
