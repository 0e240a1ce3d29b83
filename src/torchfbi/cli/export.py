"""``torchfbi export``: the explainer as a file, or as a page, that runs without torchfbi."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchfbi.cli import options, report

if TYPE_CHECKING:
    from torchfbi.method.settings import Settings
    from torchfbi.models import Model

TARGETS = ("pt2", "onnx", "aoti", "web")
"""As in ``torchfbi.export``, where a test looks."""


def export(
    network: Model,
    settings: Settings,
    to: Annotated[str, typer.Option(help=f"The format: {', '.join(TARGETS)}.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The file, or for web the folder. By default fbi-out/MODEL."
        ),
    ] = None,
    check: Annotated[
        list[Path] | None,
        typer.Option(
            help="A photo on which the file is verified; may be repeated. By default random "
            "pictures are made.",
            metavar="IMAGE",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="How many images it takes: faster with aoti. By default any number."),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            help="For web: the archive of onnxruntime-web, where npm cannot fetch it.",
            metavar="FILE.tgz",
        ),
    ] = None,
    other: options.Input = None,
    json: options.Json = False,
) -> None:
    """Write forward pass and backward walk as one graph, verified against this explainer."""
    from torchfbi import export as exporting
    from torchfbi.cli import inputs

    path = out if out is not None else report.Names(Path("fbi-out")).new(network.name)
    photos: Any = check
    if others := inputs.read(other or [], network):
        photos = inputs.together(
            network, check or exporting.pictures(network.preprocess.size), others
        )
    with report.waiting(f"exporting {network.name}, which takes minutes for deep networks"):
        written = exporting.export(
            network, path, to, settings, images=photos, batch=batch, runtime=runtime
        )
    if json:
        report.print_json(written.to_dict())
        return
    agreement = written.agreement
    if written.batch is not None and batch is None:
        report.console.print(
            f"It takes {written.batch} image at a time: the walk through this network cannot be "
            "traced for any number."
            if written.batch == 1
            else f"It takes {written.batch} images at a time, which the network fixes."
        )
    report.console.print(
        f"The file agrees with this explainer: {agreement.exact} of {agreement.samples} supports "
        f"(on average {agreement.density:.1%} of the pixels) are identical, with values within "
        f"{agreement.values:.0e} in the mean."
    )
    if agreement.exact < agreement.samples:
        report.console.print(
            f"The others differ in up to {agreement.pixels} pixels, no more than this explainer's "
            "own once an image is changed by 1e-6 of its values."
        )
    if written.loss is not None:
        report.console.print(
            f"Its weights are rounded to 16 bits: probabilities change by up to "
            f"{written.loss.probability:.0e}, and supports share {written.loss.overlap:.1%}."
        )
    elif to == "web":
        report.console.print("Its weights are float32: rounded to 16 bits they change the answer.")
    if not agreement.density:
        report.complain("the supports are empty, which proves little: try --check with photos.")
    report.print_files([written.path])
    if to == "web":
        report.console.print(
            f"See it: python -m http.server --directory {written.path} (any file server does)",
            soft_wrap=True,
        )
