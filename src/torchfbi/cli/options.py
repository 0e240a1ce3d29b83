"""The options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from torchfbi.errors import SettingsError
from torchfbi.models import DEFAULT
from torchfbi.settings import PRESETS, Settings

Image = Annotated[Path, typer.Argument(help="A photo.", metavar="IMAGE", show_default=False)]
Images = Annotated[
    list[Path], typer.Argument(help="One or more photos.", metavar="IMAGE...", show_default=False)
]
ModelName = Annotated[
    str, typer.Option("--model", "-m", help=f"The network, e.g. {DEFAULT}, torchvision:resnet50.")
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        help="The class to explain: a number, a name, or top2 for the second most probable "
        "one. The most probable one by default.",
        show_default=False,
    ),
]
Preset = Annotated[str, typer.Option("--preset", "-p", help=f"One of {', '.join(PRESETS)}.")]
K = Annotated[
    float | None,
    typer.Option("--k", help="The share of the feature maps that goes on, in (0, 1]."),
]
Tau = Annotated[float | None, typer.Option("--tau", help="An absolute threshold, the paper's tau.")]
ThresholdText = Annotated[
    str | None,
    typer.Option(
        "--threshold",
        help="mass:0.9, quantile:0.98, relative:0.1, absolute:10, or none.",
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any other setting, e.g. --set pooling=winner --set evidence_gate=0.1.",
        metavar="NAME=VALUE",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The folder for the results.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Dark = Annotated[bool, typer.Option("--dark", help="Figures on a dark background.")]
Format = Annotated[str, typer.Option("--format", "-f", help="The figures' format: png, svg, pdf.")]
Dpi = Annotated[int, typer.Option("--dpi", min=30, max=1200, help="Dots per inch of a PNG.")]

OUT = Path("fbi-out")


def settings_from(
    preset: str,
    k: float | None = None,
    tau: float | None = None,
    threshold: str | None = None,
    override: list[str] | None = None,
) -> Settings:
    """The preset with what was asked for on top.

    Raises:
        SettingsError: an unknown preset, setting or value.
    """
    changes: dict[str, Any] = dict(map(_parse, override or []))
    if k is not None:
        changes["k"] = k
    if tau is not None:
        changes["tau"] = tau
    if threshold is not None:
        changes["threshold"] = None if threshold.lower() == "none" else threshold
    return Settings.from_preset(preset, **changes)


def _parse(assignment: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals:
        raise SettingsError(f"--set {assignment}: write NAME=VALUE.")
    try:
        return name, None if text.lower() == "none" else json.loads(text.lower())
    except json.JSONDecodeError:
        return name, text
