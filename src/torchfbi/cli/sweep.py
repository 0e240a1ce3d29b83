"""``torchfbi sweep``: the study of the paper's section 3 as a grid over k and tau."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from torchfbi.cli import options, report

if TYPE_CHECKING:
    from torchfbi.models import Model

Ks = Annotated[list[float], typer.Option("--k", help="Shares of feature maps: --k 0.1 0.5 1.")]
Taus = Annotated[list[float], typer.Option("--tau", help="Thresholds: --tau 0 1 10.")]


def sweep(
    image: options.Image,
    network: Model,
    drawing: options.Drawing,
    target: options.Target = None,
    preset: options.Preset = "paper",
    k: Ks = [0.1, 0.5, 1.0],  # noqa: B006  # typer copies it
    tau: Taus = [0.0, 0.1, 0.2, 10.0],  # noqa: B006
    override: options.Override = None,
) -> None:
    """Draw the explanation for every k and tau, with what it does to the class."""
    from torchfbi import plot
    from torchfbi.sweep import sweep as run_sweep

    settings = options.settings(preset, override=override)
    with report.waiting(f"asking {len(k) * len(tau)} times"):
        grid = run_sweep(network, image, ks=k, taus=tau, target=target, settings=settings)
    path = report.Names(drawing.out).new(image.name, "sweep")
    figure = path.with_name(f"{path.name}.{drawing.format}")
    plot.save(plot.sweep_figure(grid, dark=drawing.dark), figure, dpi=drawing.dpi)
    drawing.show(figure)
    if drawing.json:
        report.print_json({**grid.to_dict(), "files": [str(figure)]})
        return
    table = Table(title=f"{image.name}: what k and tau do", title_justify="left")
    for column in ("k", "tau", "support", "p(class), support kept", "p(class), removed"):
        table.add_column(column, justify="right")
    for cell in grid.to_dict()["cells"]:
        table.add_row(
            f"{cell['k']:g}",
            f"{cell['tau']:g}",
            f"{cell['density']:.1%}",
            f"{cell['kept']:.1%}",
            f"{cell['removed']:.1%}",
        )
    report.console.print(table)
    report.print_files([figure])
