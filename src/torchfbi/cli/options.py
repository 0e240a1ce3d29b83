"""The options that several commands share, each group written once.

A command that has a parameter ``network``, ``networks``, ``settings`` or ``drawing`` gets the
options of that group, and the finished object instead of their values.
"""

from __future__ import annotations

import functools
import inspect
import json as jsonlib
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchfbi.cli import report
from torchfbi.errors import SettingsError, TargetError
from torchfbi.method.settings import PRESETS, Settings

if TYPE_CHECKING:
    from torchfbi.models import Labels, Model
    from torchfbi.models.source import Source

DEFAULT = "efficientnet-lite0"
"""As in ``torchfbi.models``, which would import PyTorch."""

Image = Annotated[Path, typer.Argument(help="A photo.", metavar="IMAGE", show_default=False)]
Images = Annotated[
    list[Path], typer.Argument(help="One or more photos.", metavar="IMAGE...", show_default=False)
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
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Another input of the network, by the name of its forward's argument: a photo, or "
        "an .npy of shape (1, ...).",
        metavar="NAME=FILE",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        help="A class to explain, as often as you like: a number, a name, or top2 for the second "
        "most probable one. The most probable one by default.",
        show_default=False,
    ),
]
Preset = Annotated[str, typer.Option("--preset", "-p", help=f"One of {', '.join(PRESETS)}.")]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any other setting, e.g. --set pooling=winner --set gamma=0.5.",
        metavar="NAME=VALUE",
    ),
]
Open = Annotated[bool, typer.Option("--open", help="Show the result when it is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Numbers = list[float] | None


def network(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="The network: a name that 'torchfbi models' lists, a file, or path.py:function.",
        ),
    ] = DEFAULT,
    weights: Annotated[
        Path | None,
        typer.Option(help="A state dict for that network: .safetensors, .pt or .pth."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="The class names: a line a class, JSON or YAML.")
    ] = None,
    mean: Annotated[Numbers, typer.Option(help="Of each channel, on a scale of 0 to 1.")] = None,
    std: Annotated[Numbers, typer.Option(help="Of each channel, on a scale of 0 to 1.")] = None,
    size: Annotated[int | None, typer.Option(help="Resize the shorter side to this.")] = None,
    crop: Annotated[int | None, typer.Option(help="The side of the square cut out.")] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="The network takes BGR, not RGB.")] = False,
    stretch: Annotated[
        bool, typer.Option("--stretch", help="Squeeze the whole photo in, instead of cropping.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1, mps.")
    ] = "cpu",
) -> Model:
    """The network where it is to run, with what was said about its weights, labels and
    preprocessing."""
    return _source(model, weights, labels, mean, std, size, crop, bgr, stretch, device).load()


def _source(
    model: str,
    weights: Path | None,
    labels: Path | None,
    mean: Numbers,
    std: Numbers,
    size: int | None,
    crop: int | None,
    bgr: bool,
    stretch: bool,
    device: str,
) -> Source:
    from torchfbi.models.source import Source

    said = {
        "mean": mean or None,
        "std": std or None,
        "resize": size if size is not None else crop,
        "crop": crop,
        "channels": "BGR" if bgr else None,
        "fit": "stretch" if stretch else None,
    }
    return Source(model, weights, labels, said, device)


def networks(model: list[str] | None = None, **how: Any) -> dict[str, Source]:
    """Each of several networks, by its name; all that is said holds for every one.

    What was said is a part of the name: the name alone would load another network.
    """
    names = list(dict.fromkeys(model or [DEFAULT]))
    if len(names) > 1 and (how["weights"] is not None or how["labels"] is not None):
        raise SettingsError("--weights and --labels belong to one network: give one --model.")
    plain: tuple[Any, ...] = (None, False, [], "cpu")
    said = ", ".join(name for name, value in how.items() if value not in plain)
    return {f"{name} with its own {said}" if said else name: _source(name, **how) for name in names}


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Its types of networks and settings are for people: they are not imported for it."""
    unknown = dict.fromkeys(
        ("Model", "Source", "Settings", "Labels", "Explanation", "Verdict"), Any
    )
    return inspect.signature(function, eval_str=True, locals=unknown)


_SEVERAL = inspect.Parameter(
    "model",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help=f"A network to choose from; give it several times for several. {DEFAULT} by "
            "default.",
            show_default=False,
        ),
    ],
)
_ONE = _signature(network).parameters
networks.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_SEVERAL, *(p.replace(kind=p.KEYWORD_ONLY) for n, p in _ONE.items() if n != "model")]
)


def chosen(target: Any, labels: Labels) -> Any:
    """The target or targets; on a terminal, which of several classes a name means is asked back."""
    if isinstance(target, list):
        return [chosen(one, labels) for one in target]
    found = [] if target is None or target.isdecimal() else labels.candidates(target)
    if len(found) < 2 or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return target
    typer.echo(f"{target!r} fits {len(found)} classes:")
    for number in found[:30]:
        typer.echo(f"{number:6}  {labels[number]}")
    answer = str(typer.prompt("Which number")).strip()
    if answer not in map(str, found):
        raise TargetError(f"{answer!r} is none of them.")
    return answer


def settings(
    preset: Preset = "contrast",
    k: Annotated[
        float | None, typer.Option("--k", help="The share of the feature maps that goes on.")
    ] = None,
    tau: Annotated[
        float | None, typer.Option("--tau", help="The threshold of the paper's masking.")
    ] = None,
    override: Override = None,
) -> Settings:
    """The preset with what was asked for on top."""
    changes: dict[str, Any] = dict(map(_parse, override or []))
    if k is not None:
        changes["k"] = k
    if tau is not None:
        changes["tau"] = tau
    return Settings.from_preset(preset, **changes)


def _parse(assignment: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals:
        raise SettingsError(f"--set {assignment}: write NAME=VALUE.")
    if name == "preset":
        raise SettingsError("a preset is chosen by --preset; --set changes one of its settings.")
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return name, words[text.lower()]
    try:
        return name, jsonlib.loads(text)
    except jsonlib.JSONDecodeError:
        return name, text


@dataclass(frozen=True)
class Drawing:
    """Where the results go and how they look."""

    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the results.")] = Path(
        "fbi-out"
    )
    json: Json = False
    dark: Annotated[bool, typer.Option("--dark", help="Figures on a dark background.")] = False
    format: Annotated[
        str, typer.Option("--format", "-f", help="The figures' format: png, svg or pdf.")
    ] = "png"
    dpi: Annotated[int, typer.Option(min=30, max=1200, help="Dots per inch of a PNG.")] = 150
    open: Open = False

    def show(self, file: Path) -> None:
        """Open a result in the program that the system has for it, if that was asked for."""
        show(file, self.open)


def show(file: Path, wanted: bool) -> None:
    """Open a file in the program that the system has for it, if that is wanted."""
    if wanted:
        typer.launch(file.resolve().as_uri() if file.suffix == ".html" else str(file))


GROUPS: dict[str, Callable[..., Any]] = {
    "network": network,
    "networks": networks,
    "settings": settings,
    "drawing": Drawing,
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as Typer wants it: each group spelled out as its options. What the function
    itself has under a group's name is its own."""
    own = _signature(function).parameters
    groups = {
        name: {n: p for n, p in _signature(GROUPS[name]).parameters.items() if n not in own}
        for name in own
        if name in GROUPS
    }
    options: list[inspect.Parameter] = []
    for name, parameter in own.items():
        options += groups[name].values() if name in groups else [parameter]
    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        finished = {name: given[name] for name in own if name not in groups}
        for name, parameters in groups.items():
            loading = report.waiting("loading the network")
            with loading if name == "network" else nullcontext():
                finished[name] = GROUPS[name](**{option: given[option] for option in parameters})
        if "network" in finished:
            report.warn(finished["network"].warnings())
        if "target" in finished and "network" in finished:
            finished["target"] = chosen(finished["target"], finished["network"].labels)
        function(**finished)

    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run
