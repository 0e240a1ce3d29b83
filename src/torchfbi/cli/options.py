"""The options that several commands share, each group written once.

A command that has a parameter ``network``, ``networks``, ``settings`` or ``drawing`` gets the
options of that group, and the finished object instead of their values.
"""

from __future__ import annotations

import functools
import inspect
import json as jsonlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from torchfbi import models
from torchfbi.errors import SettingsError
from torchfbi.method.settings import PRESETS, Settings
from torchfbi.models import DEFAULT, Labels, Model

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
        Path | None, typer.Option(help="The class names: a line a class, or JSON.")
    ] = None,
    mean: Annotated[Numbers, typer.Option(help="Of each channel, on a scale of 0 to 1.")] = None,
    std: Annotated[Numbers, typer.Option(help="Of each channel, on a scale of 0 to 1.")] = None,
    size: Annotated[int | None, typer.Option(help="Resize the shorter side to this.")] = None,
    crop: Annotated[int | None, typer.Option(help="The side of the square cut out.")] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="The network takes BGR, not RGB.")] = False,
    stretch: Annotated[
        bool, typer.Option("--stretch", help="Squeeze the whole photo in, instead of cropping.")
    ] = False,
) -> Model:
    """The network, with what was said about its weights, labels and preprocessing."""
    loaded = models.load(model, weights=weights)
    if labels is not None:
        loaded = replace(loaded, labels=Labels.read(labels, len(loaded.labels)))
    changes: dict[str, Any] = {
        "mean": _each_channel(mean, loaded),
        "std": _each_channel(std, loaded),
        "resize": size if size is not None else crop,
        "crop": crop,
        "channels": "BGR" if bgr else None,
        "fit": "stretch" if stretch else None,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    return replace(loaded, preprocess=replace(loaded.preprocess, **changes))


def networks(model: list[str] | None = None, **how: Any) -> dict[str, Callable[[], Model]]:
    """What loads each of several networks, by its name; all that is said holds for every one.

    What was said is a part of the name: the name alone would load another network.
    """
    names = list(dict.fromkeys(model or [DEFAULT]))
    if len(names) > 1 and (how["weights"] is not None or how["labels"] is not None):
        raise SettingsError("--weights and --labels belong to one network: give one --model.")
    said = ", ".join(name for name, value in how.items() if value not in (None, False, []))
    loaders = {name: functools.partial(network, name, **how) for name in names}
    return {f"{name} with its own {said}" if said else name: loaders[name] for name in names}


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
_ONE = inspect.signature(network, eval_str=True).parameters
networks.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_SEVERAL, *(p.replace(kind=p.KEYWORD_ONLY) for n, p in _ONE.items() if n != "model")]
)


def _each_channel(numbers: Numbers, model: Model) -> tuple[float, ...] | None:
    """One number stands for all channels."""
    if not numbers:
        return None
    return tuple(numbers * len(model.preprocess.mean) if len(numbers) == 1 else numbers)


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


GROUPS: dict[str, Callable[..., Any]] = {
    "network": network,
    "networks": networks,
    "settings": settings,
    "drawing": Drawing,
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The function as Typer wants it: each group spelled out as its options."""
    own = inspect.signature(function, eval_str=True).parameters
    groups = {
        name: inspect.signature(GROUPS[name], eval_str=True).parameters
        for name in own
        if name in GROUPS
    }
    options: list[inspect.Parameter] = []
    for name, parameter in own.items():
        options += groups[name].values() if name in groups else [parameter]
    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        finished = {
            name: GROUPS[name](**{option: given[option] for option in groups[name]})
            if name in groups
            else given[name]
            for name in own
        }
        function(**finished)

    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run
