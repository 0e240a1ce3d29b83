"""``torchfbi batch``: a data set in, Parquet files out, resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import ProgressColumn, Task
from rich.text import Text

from torchfbi.cli import options, report
from torchfbi.errors import needs
from torchfbi.system import page

if TYPE_CHECKING:
    from torchfbi.batch import Progress
    from torchfbi.method.settings import Settings
    from torchfbi.models import Model

LISTED = 20
"""How many failed images are listed on standard error; all of them are in the rows."""


def engine() -> Any:
    """The package ``torchfbi.batch``, which needs an extra.

    Raises:
        ModelError: the extra is not installed.
    """
    with needs("torchfbi[batch]"):
        from torchfbi import batch
    return batch


def batch(
    images: Annotated[
        str,
        typer.Argument(
            help="A folder, a list of paths (.txt), a pattern, a Parquet file, a tar archive, or "
            "a saved data set of Hugging Face.",
            metavar="INPUT",
            show_default=False,
        ),
    ],
    network: Model,
    settings: Settings,
    target: options.Target = None,
    other: options.Input = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder for the rows, where it also goes on.")
    ] = Path("fbi-out/batch"),
    engine_name: Annotated[
        str, typer.Option("--engine", help="local, or ray for a cluster.")
    ] = "local",
    at_a_time: Annotated[
        int | None,
        typer.Option("--batch", help="Images at a time; what fits into memory by default.", min=1),
    ] = None,
    shard: Annotated[
        int | None, typer.Option(help="Images a file of rows; 128 by default.", min=1)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of PyTorch.", min=1)] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that decode, 0 for none; actors on Ray.", min=0)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a running Ray cluster; one on this machine without.", show_default=False
        ),
    ] = None,
    cpus: Annotated[float, typer.Option(help="What an actor on Ray asks for.", min=0)] = 1.0,
    gpus: Annotated[float, typer.Option(help="What an actor on Ray asks for.", min=0)] = 0.0,
    device: Annotated[str, typer.Option(help="Where the network runs: cpu or cuda.")] = "cpu",
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Test on each image whether its explanation holds: 60 passes more."
        ),
    ] = False,
    mix: Annotated[
        bool, typer.Option("--mix", help="Go on though network, settings or versions have changed.")
    ] = False,
    figures: Annotated[
        bool, typer.Option("--figures", help="Draw each explanation as 'explain' does.")
    ] = False,
    overview: Annotated[
        bool,
        typer.Option(
            "--overview/--no-overview",
            help="Write overview.html: all images on one page, what needs a look first.",
        ),
    ] = True,
    open_: options.Open = False,
    json: options.Json = False,
) -> None:
    """Explain every image of a data set; a bad one is a row with its error.

    The same command goes on where it was stopped or killed.
    """
    from torchfbi.cli import inputs

    running = engine()
    held = {name: given.tensor for name, given in inputs.read(other or [], network).items()}
    extra: dict[str, Any] = {"workers": workers, "inputs": held}
    if engine_name == "ray":
        extra |= {"address": address, "cpus": cpus, "gpus": gpus}
    with _progress() as progress:
        done = running.run(
            network,
            images,
            out,
            target,
            settings,
            engine=engine_name,
            batch=at_a_time,
            shard=shard,
            threads=threads,
            device=device,
            verify=verify,
            mix=mix,
            progress=progress,
            **extra,
        )
    files = [out / "rows"]
    store = running.Store(out)
    if figures:
        drawn = running.draw(store, network, settings)
        files += {figure.parent for figure in drawn}
    if overview:
        with report.waiting("drawing the overview"):
            files.append(overview_of(store))
        options.show(files[-1], open_)
    if json:
        failed = [{"path": path, "error": error} for path, error in done.failures]
        counts = {"images": done.images, "explained": done.explained, "failed": failed}
        report.print_json({**counts, "files": list(map(str, files))})
    else:
        before = done.images - done.explained
        report.console.print(
            f"{done.images:,} images, {len(done.failures):,} failed"
            + (f"; {before:,} were there before" if before else "")
        )
        report.print_files(files)
    _complain(done.failures, done.images)
    raise typer.Exit(1 if done.failures else 0)


def overview_of(store: Any, summary: Any = None) -> Path:
    """The page of all images in a folder of rows; returns its path."""
    running = engine()
    html = running.overview_page(store, summary or running.summarize(store.folder))
    return page.save(html, store.folder / "overview.html")


def _complain(failures: list[tuple[str, str]], images: int) -> None:
    if failures:
        report.complain(f"{len(failures)} of {images} images failed:")
    for path, error in failures[:LISTED]:
        report.complain(f"  {error}" if path in error else f"  {path}: {error}")
    if len(failures) > LISTED:
        report.complain(f"  and {len(failures) - LISTED} more: see the column error of the rows.")


class _Rate(ProgressColumn):
    """Images a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    # The rate over two minutes: batches of a large network are rare.
    with report.bar(_Rate(), speed_estimate_period=120) as bar:
        task = None

        def show(step: Progress) -> None:
            nonlocal task
            if task is None:  # what was there before does not count for the rate
                task = bar.add_task("", completed=step.done, total=step.total)
            failed = f"{step.failed} failed" if step.failed else ""
            bar.update(task, completed=step.done, description=failed)

        yield show
