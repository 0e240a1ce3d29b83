"""``torchfbi sweep``: the study of the paper's section 3 as a grid over k and the threshold."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from torchfbi import plot
from torchfbi.cli import options, report
from torchfbi.errors import SettingsError
from torchfbi.models import DEFAULT, load
from torchfbi.settings import Threshold
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
    model: options.ModelName = DEFAULT,
    target: options.Target = None,
    preset: options.Preset = "paper",
    k: Ks = [0.1, 0.5, 1.0],  # noqa: B006  # typer copies it
    tau: Taus = None,
    threshold: Thresholds = None,
    override: options.Override = None,
    out: options.Out = options.OUT,
    json: options.Json = False,
    dark: options.Dark = False,
    format: options.Format = "png",
    dpi: options.Dpi = 150,
) -> None:
    """Draw the explanation for every k and threshold, with what it does to the class."""
    if tau and threshold:
        raise SettingsError("give --tau or --threshold, not both.")
    settings = options.settings_from(preset, override=override)
    parsed = [Threshold.parse(text) for text in threshold] if threshold else None
    taus = (tau or [0.0, 0.1, 0.2, 10.0]) if parsed is None else None
    grid = run_sweep(
        load(model), image, ks=k, taus=taus, thresholds=parsed, target=target, settings=settings
    )
    path = report.Names(out).new(image.name, "sweep")
    figure = path.with_name(f"{path.name}.{format}")
    plot.save(plot.sweep_figure(grid, dark=dark), figure, dpi=dpi)
    if json:
        report.print_json({**grid.to_dict(), "files": [str(figure)]})
        return
    table = Table(title=f"{image.name}: what k and the threshold do", title_justify="left")
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
