"""``torchfbi sweep``: the study of the paper's section 3 as a grid over k and the threshold."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from torchfbi import plot
from torchfbi.cli import options, report
from torchfbi.errors import SettingsError
from torchfbi.models import Model
from torchfbi.sweep import sweep as run_sweep

Ks = Annotated[list[float], typer.Option("--k", help="Shares of feature maps: --k 0.1 0.5 1.")]
Taus = Annotated[
    list[float] | None, typer.Option("--tau", help="Absolute thresholds: --tau 0 1 10.")
]
Thresholds = Annotated[
    list[str] | None, typer.Option("--threshold", help="Other ones: --threshold mass:0.8 mass:0.9.")
]


def sweep(
    image: options.Image,
    network: Model,
    drawing: options.Drawing,
    target: options.Target = None,
    preset: options.Preset = "paper",
    k: Ks = [0.1, 0.5, 1.0],  # noqa: B006  # typer copies it
    tau: Taus = None,
    threshold: Thresholds = None,
    override: options.Override = None,
) -> None:
    """Draw the explanation for every k and threshold, with what it does to the class."""
    if tau and threshold:
        raise SettingsError("give --tau or --threshold, not both.")
    grid = run_sweep(
        network,
        image,
        ks=k,
        taus=None if threshold else tau or [0.0, 0.1, 0.2, 10.0],
        thresholds=[None if t.lower() == "none" else t for t in threshold] if threshold else None,
        target=target,
        settings=options.settings(preset, override=override),
    )
    path = report.Names(drawing.out).new(image.name, "sweep")
    figure = path.with_name(f"{path.name}.{drawing.format}")
    plot.save(plot.sweep_figure(grid, dark=drawing.dark), figure, dpi=drawing.dpi)
    if drawing.json:
        report.print_json({**grid.to_dict(), "files": [str(figure)]})
        return
    table = Table(title=Text(f"{image.name}: what k and the threshold do"), title_justify="left")
    for column in ("k", "threshold", "support", "p(class), support kept", "p(class), removed"):
        table.add_column(column, justify="right")
    for cell in grid.to_dict()["cells"]:
        table.add_row(
            f"{cell['k']:g}",
            cell["threshold"],
            f"{cell['density']:.1%}",
            f"{cell['kept']:.1%}",
            f"{cell['removed']:.1%}",
        )
    report.console.print(table)
    report.print_files([figure])
