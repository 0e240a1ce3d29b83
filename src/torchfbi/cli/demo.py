"""``torchfbi demo``: a real photo through the embedded network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torchfbi import api
from torchfbi.cli import options, report
from torchfbi.cli.explain import write
from torchfbi.errors import ModelError
from torchfbi.images import Photo
from torchfbi.models import DEFAULT


def demo(drawing: options.Drawing) -> None:
    """Explain a photo of a cat with the network that comes along."""
    explanation = api.explain(DEFAULT, cat())
    files = write(explanation, drawing.out / "demo-cat", drawing)
    if drawing.json:
        report.print_json({**explanation.manifest()["samples"][0], "files": list(map(str, files))})
        return
    report.print_top(explanation)
    report.print_files(files)
    report.console.print(f"\nLook at {files[0]}: what is bright made the network say it.")
    report.console.print("Your own photos, by clicking: torchfbi serve")


def cat() -> Photo:
    """The photo of a tabby cat that scikit-image ships (Chelsea, by Stefan van der Walt, CC0).

    Raises:
        ModelError: scikit-image is not installed.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise ModelError("the demo's photo is in scikit-image: pip install 'torchfbi[demo]'")
    return Photo.read(Path(package.origin).parent / "data" / "chelsea.png")
