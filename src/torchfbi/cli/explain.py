"""``torchfbi explain``: photos in; figure, npz and manifest out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from torchfbi import api, plot
from torchfbi.cli import options, report
from torchfbi.explanation import Explanation
from torchfbi.models import Model
from torchfbi.settings import Settings


def explain(
    images: options.Images,
    network: Model,
    settings: Settings,
    drawing: options.Drawing,
    target: options.Target = None,
) -> None:
    """Explain what the network sees in each photo."""
    names = report.Names(drawing.out)
    results: list[dict[str, Any]] = []

    def work(image: Path) -> None:
        explanation = api.explain(network, image, target, settings)
        asked = [] if target is None else [explanation.title().rpartition(" (")[0]]
        files = write(explanation, names.new(image.name, *asked), drawing)
        results.append({**explanation.manifest()["samples"][0], "files": list(map(str, files))})
        if not drawing.json:
            report.print_top(explanation)
            report.print_files(files)

    failures = report.each(images, work)
    if drawing.json:
        report.print_json(
            results + [{"photo": str(path), "error": text} for path, text in failures.items()]
        )
    raise typer.Exit(1 if failures else 0)


def write(explanation: Explanation, path: Path, drawing: options.Drawing) -> list[Path]:
    """The figure, the npz and the manifest beside each other; returns their paths."""
    figure = path.with_name(f"{path.name}.{drawing.format}")
    plot.save(explanation.plot(dark=drawing.dark), figure, dpi=drawing.dpi)
    arrays = explanation.save(path.with_name(f"{path.name}.npz"))
    return [figure, arrays, arrays.with_suffix(".json")]
