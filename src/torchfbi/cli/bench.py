"""``torchfbi bench``: what an explanation costs, in forward passes, and beside the peers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from torchfbi import plot
from torchfbi.bench.cases import Case
from torchfbi.bench.machine import machine, processor
from torchfbi.bench.results import Result, Timing, to_dict
from torchfbi.bench.run import run
from torchfbi.cli import options, report
from torchfbi.errors import SettingsError
from torchfbi.plot.bench import bench_figure

MODELS = "torchvision:vgg16,torchvision:resnet50,torchvision:mobilenet_v2,efficientnet-lite0"
DEPTHS = 5
"""At how many depths the table shows the share of the signal that is not zero."""


def bench(
    drawing: options.Drawing,
    models: Annotated[
        str,
        typer.Option(
            "--models",
            "-m",
            help="Names parted by commas, as 'torchfbi models' lists them. Architectures of "
            "libraries get random weights.",
        ),
    ] = MODELS,
    batch: Annotated[str, typer.Option(help="Batch sizes parted by commas.")] = "1,8",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    size: Annotated[int | None, typer.Option(help="The side of the images in pixels.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="A photo to explain; random pixels without one.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="As for the other commands, where there is one network.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where everything runs: cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Of PyTorch.", min=1)] = None,
    repeats: Annotated[int, typer.Option(help="How often each is timed.", min=1)] = 10,
    peers: Annotated[
        bool, typer.Option("--peers", help="With Captum's GuidedBackprop and Grad-CAM, and Zennit.")
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compiled", help="With ours as 'export --to aoti' compiles it: half a minute each."
        ),
    ] = False,
) -> None:
    """Time explanations against the forward pass, all in turn, and measure their memory."""
    names = [name.strip() for name in models.split(",") if name.strip()]
    kind: Any = dtype
    if weights is not None and len(names) > 1:
        raise SettingsError("--weights belong to one network: give one name to --models.")
    cases = [
        Case(name, n, kind, size, image, device, weights) for name in names for n in _numbers(batch)
    ]
    if not cases:
        raise SettingsError("--models names no network.")
    facts = machine()
    facts["threads"] = threads or facts["threads"]
    if not drawing.json:
        report.console.print(_summary(facts))
    figure = drawing.out / f"bench.{drawing.format}"
    results: list[Result] = []
    for case in cases:
        results.append(run(case, repeats, peers, threads, compiled))
        if not drawing.json:
            _show(results[-1])
        # After each: who stops it keeps what was measured so far.
        drawn = bench_figure(results, _summary(facts), dark=drawing.dark)
        plot.save(drawn, figure, dpi=drawing.dpi)
        measured = {**to_dict(facts, results), "files": [str(figure)]}
        figure.with_suffix(".json").write_text(json.dumps(measured, indent=1), encoding="utf-8")
    if drawing.json:
        report.print_json(measured)
        return
    report.print_files([figure, figure.with_suffix(".json")])
    drawing.show(figure)


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise SettingsError(f"--batch {text}: give whole numbers, such as 1,8.") from None


def _summary(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return f"{processor(facts)}; {versions}"


def _show(result: Result) -> None:
    table = Table(title=result.title, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("ms", "× forward", "quartiles", "MiB"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("non-zero signal, %")
    for row in result.rows:
        table.add_row(row.name, *_cells(row))
    report.console.print(table)
    report.console.print(
        f"Captured in {result.capture:.2f} s; another explainer of it: "
        f"{1000 * result.again:.0f} ms.\n"
    )


def _cells(row: Timing) -> list[str]:
    if row.seconds is None or row.ratio is None:
        return ["", "", "", "", row.failed]
    return [
        f"{1000 * row.seconds.median:,.1f}",
        f"{row.ratio.median:.2f}",
        f"{row.ratio.low:.2f}–{row.ratio.high:.2f}",
        "" if row.memory is None else f"{row.memory.peak / 2**20:,.0f}",
        _shares(row.alive),
    ]


def _shares(alive: tuple[tuple[str, float], ...]) -> str:
    """From the top layer to the image, evenly spaced."""
    count = min(DEPTHS, len(alive))
    places = [round(i * (len(alive) - 1) / max(1, count - 1)) for i in range(count)]
    shares = [100 * alive[place][1] for place in places]
    return " ".join(f"{share:.{0 if share >= 10 else 1}f}" for share in shares)
