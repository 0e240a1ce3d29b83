"""``torchfbi survey``: which architectures work, as a page of the docs."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from torchfbi.cli import report
from torchfbi.errors import ModelError
from torchfbi.survey import family, representatives
from torchfbi.survey.examine import Row
from torchfbi.survey.names import architectures
from torchfbi.survey.report import page
from torchfbi.survey.run import run

Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="Architectures such as timm:resnet50, or timm:resnet* for several; by default all "
        "of torchvision and one of each kind in timm.",
        metavar="[NAME]...",
        show_default=False,
    ),
]


def survey(
    names: Names = None,
    out: Annotated[Path, typer.Option(help="The page to write, Markdown.")] = Path(
        "architectures.md"
    ),
    record: Annotated[
        Path, typer.Option(help="The rows, JSON lines. What it holds is not done again.")
    ] = Path("architectures.jsonl"),
    jobs: Annotated[int, typer.Option(help="Processes at a time.", min=1)] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds for one architecture.")] = 600.0,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Examine architectures with random weights, and write a page on which of them work."""
    known = architectures()
    chosen = representatives()
    if names:
        patterns = [name.lower() for name in names]
        chosen = [name for name in known if any(fnmatchcase(name, p) for p in patterns)]
        if not chosen:
            raise ModelError(f"no architecture of torchvision or timm is called {names[0]!r}.")

    def show(row: Row) -> None:
        if not json:
            report.console.print(f"{row.name}: {row.refused or 'explained'}", highlight=False)

    rows = run(chosen, record, jobs, timeout, show)
    out.write_text(page(rows, Counter(map(family, known))), encoding="utf-8")
    if json:
        report.print_json([row.to_dict() for row in rows])
        return
    report.print_files([out])
