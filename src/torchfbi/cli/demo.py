"""``torchfbi demo``: a real photo through the embedded network."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from torchfbi import api
from torchfbi.cli import options, report
from torchfbi.cli.explain import write
from torchfbi.errors import ModelError
from torchfbi.models import DEFAULT
from torchfbi.models.images import Photo


def demo(drawing: options.Drawing) -> None:
    """Explain a photo of an espresso with the network that comes along, and test what came out."""
    explanation = api.explain(DEFAULT, espresso())
    explanation = replace(explanation, verdicts=explanation.verify())
    files = write(explanation, drawing.out / "demo-espresso", drawing)
    if drawing.json:
        report.print_json({**explanation.manifest()["samples"][0], "files": list(map(str, files))})
        return
    report.print_top(explanation)
    report.print_verdicts(explanation.verdicts)
    report.print_files(files)
    report.console.print(f"\nLook at {files[0]}: what is in colour made the network say it.")
    report.console.print("Your own photos, by clicking: torchfbi serve")


def espresso() -> Photo:
    """The photo of a cup of coffee that scikit-image ships (by Pikolo Espresso Bar, CC0).

    Raises:
        ModelError: scikit-image is not installed.
    """
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise ModelError("the demo's photo is in scikit-image: pip install 'torchfbi[demo]'")
    return Photo.read(Path(package.origin).parent / "data" / "coffee.png")
