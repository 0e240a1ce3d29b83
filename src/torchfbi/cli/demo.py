"""``torchfbi demo`` and ``torchfbi photos``: what comes along, to look at and to try things on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from torchfbi.cli import options, report
from torchfbi.cli.explain import write


def demo(drawing: options.Drawing) -> None:
    """Explain a photo of an espresso with the network that comes along, and test what came out."""
    from torchfbi import api
    from torchfbi.models import DEFAULT
    from torchfbi.models.photos import COFFEE

    with report.waiting("explaining, and testing whether it holds"):
        explanation = api.explain(DEFAULT, COFFEE)
        explanation = replace(explanation, verdicts=explanation.verify())
    files = write(explanation, drawing.out / "demo-espresso", drawing)
    if drawing.json:
        report.print_json({**explanation.manifest()["samples"][0], "files": list(map(str, files))})
        return
    report.print_top(explanation)
    report.print_verdicts(explanation.verdicts)
    report.print_files(files)
    drawing.show(files[0])
    report.console.print(f"\nLook at {files[0]}: what is in colour made the network say it.")
    report.console.print("Two photos to try more on: torchfbi photos")
    report.console.print("Your own photos, by clicking: torchfbi serve")


def photos(
    folder: Annotated[Path, typer.Argument(help="Where; here by default.")] = Path(),
    json: options.Json = False,
) -> None:
    """Put the two photos that come along, cat.jpg and coffee.jpg, into a folder.

    A file of that name is never overwritten.
    """
    from torchfbi.models.photos import CAT, COFFEE

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / photo.name for photo in (CAT, COFFEE)]
    for photo, file in zip((CAT, COFFEE), files, strict=True):
        if not file.exists():
            shutil.copyfile(photo, file)
    if json:
        report.print_json({"files": list(map(str, files))})
    else:
        report.print_files(files)
