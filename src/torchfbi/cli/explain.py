"""``torchfbi explain``: photos in; figure, npz and manifest out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from torchfbi import api, plot
from torchfbi.cli import options, report
from torchfbi.explanation import Explanation
from torchfbi.models import DEFAULT, load


def explain(
    images: options.Images,
    model: options.ModelName = DEFAULT,
    target: options.Target = None,
    preset: options.Preset = "contrast",
    k: options.K = None,
    tau: options.Tau = None,
    threshold: options.ThresholdText = None,
    override: options.Override = None,
    out: options.Out = options.OUT,
    json: options.Json = False,
    dark: options.Dark = False,
    format: options.Format = "png",
    dpi: options.Dpi = 150,
) -> None:
    """Explain what the network sees in each photo."""
    settings = options.settings_from(preset, k, tau, threshold, override)
    network = load(model)
    names = report.Names(out)
    results: list[dict[str, Any]] = []

    def work(image: Path) -> None:
        explanation = api.explain(network, image, target, settings)
        asked = [] if target is None else [explanation.title().rpartition(" (")[0]]
        files = write(explanation, names.new(image.name, *asked), format, dark, dpi)
        results.append({**explanation.manifest()["samples"][0], "files": list(map(str, files))})
        if not json:
            report.print_top(explanation)
            report.print_files(files)

    code = report.each(images, work)
    if json:
        report.print_json(results)
    raise typer.Exit(code)


def write(explanation: Explanation, path: Path, format: str, dark: bool, dpi: int) -> list[Path]:
    """The figure, the npz and the manifest beside each other; returns their paths."""
    figure = path.with_name(f"{path.name}.{format}")
    plot.save(explanation.plot(dark=dark), figure, dpi=dpi)
    arrays = explanation.save(path.with_name(f"{path.name}.npz"))
    return [figure, arrays, arrays.with_suffix(".json")]
