"""``torchfbi check`` and ``torchfbi models``: what can be explained, and what can be loaded."""

from __future__ import annotations

import fnmatch
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from torchfbi.cli import options, report
from torchfbi.errors import ModelError, UnsupportedOperatorError, usable

if TYPE_CHECKING:
    from torchfbi.models import Model
    from torchfbi.models.conventions import Tried

ANSWERS = 3
"""Of so many photos the answers are shown."""

COUNTED = 20
"""How many networks at most are built for no more than the number of their parameters."""


def check(
    model: Annotated[str, typer.Argument(help="As --model of the other commands takes it.")],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Photos like those that it was made for: the usual preprocessings are compared.",
            metavar="[IMAGE]...",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="As for the other commands.")] = None,
    labels: Annotated[Path | None, typer.Option(help="As for the other commands.")] = None,
    device: Annotated[str, typer.Option(help="As for the other commands.")] = "cpu",
    json: options.Json = False,
) -> None:
    """Say whether every operator of a network has an adjoint, without explaining anything.

    With photos also how the network's inputs were made: by what the file tells, and by what its
    batch norms remember.
    """
    from torchfbi.capture.capture import capture
    from torchfbi.method.graph import is_activation
    from torchfbi.models import load

    if images or weights or labels:
        network = options.network(model, weights=weights, labels=labels, device=device)
    else:
        network = load(model, pretrained=False)  # the weights do not matter here
        with usable(device):
            network.module.to(device)
    start = time.perf_counter()
    missing: dict[str, list[str]] = {}
    operators: dict[str, list[str]] = {}
    features = []
    try:
        graph = capture(network.module, network.blank())
        for node in graph.nodes:
            operators.setdefault(str(node.target), []).append(node.meta["layer"])
        features = [node.meta["layer"] for node in graph.nodes if is_activation(node)]
    except UnsupportedOperatorError as error:
        missing = error.operators
    seconds = time.perf_counter() - start
    compared = _compared(network, images or [])
    if json:
        report.print_json(
            {
                "model": network.name,
                "explainable": not missing,
                "missing": missing,
                "operators": {name: len(layers) for name, layers in operators.items()},
                "features": features,
                "seconds": seconds,
                "preprocess": asdict(network.preprocess),
                "assumed": list(network.assumed),
                "compared": [
                    {**one._asdict(), "preprocess": asdict(one.preprocess)} for one in compared
                ],
            }
        )
    elif not missing:
        table = Table(title=network.name, title_justify="left")
        for column in ("operator", "times", "first at"):
            table.add_column(column, justify="right" if column == "times" else "left")
        for name, layers in sorted(operators.items()):
            table.add_row(name, str(len(layers)), layers[0])
        report.console.print(table)
        report.console.print(
            f"Every operator has an adjoint: {len(features)} features to filter at. "
            f"Captured in {seconds:.1f} s."
        )
        _print_preprocess(network)
        if compared:
            _print_compared(compared)
    if missing:
        report.complain(str(UnsupportedOperatorError(missing)))
        raise typer.Exit(2)


def _compared(network: Model, images: list[Path]) -> list[Tried]:
    """The usual preprocessings on these photos."""
    if not images:
        return []
    from torchfbi.models.conventions import tried
    from torchfbi.models.images import Photo

    with report.waiting("comparing preprocessings"):
        return tried(network, [Photo.read(image) for image in images])


def _print_preprocess(network: Model) -> None:
    """How photos become inputs, and what of it nobody said."""
    for part, words in network.preprocess.words().items():
        guess = part in network.assumed
        text = f"{part}: {words}"
        report.console.print(
            f"{text}: assumed, nobody said so" if guess else text,
            style="bold yellow" if guess else None,
            soft_wrap=True,
        )


def _print_compared(compared: list[Tried]) -> None:
    """What the network says under each, and how well it fits its batch norms."""
    table = Table(title="How its inputs may have been made", title_justify="left")
    for column in ("preprocessing", "options for it", "it says"):
        table.add_column(column)
    known = compared[0].distance is not None
    if known:
        table.add_column("off", justify="right")
    for one in compared:
        answers = ", ".join(f"{name} {p:.0%}" for name, p in one.answers[:ANSWERS])
        off = [f"{one.distance:.2g}"] if one.distance is not None else []
        table.add_row(
            one.name, one.options, answers, *off, style="bold" if one.name == "now" else None
        )
    report.console.print(table)
    report.console.print(
        "off: how far the input lies from what the first batch norms remember of training, in "
        "their standard deviations. Small numbers that differ little cannot be told apart."
        if known
        else "It has no batch norm that would remember its inputs: look into the script that it "
        "was trained with. How sure an answer is proves nothing.",
        soft_wrap=True,
    )


def models(
    pattern: Annotated[
        str, typer.Argument(help="For example resnet1* or timm:*; a part of the name will do.")
    ] = "*",
    json: options.Json = False,
) -> None:
    """List the networks that can be loaded."""
    from torchfbi.models import Listing, available, describe

    wanted = (pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*").lower()

    def matches(name: str) -> bool:  # with its source or without
        return any(fnmatch.fnmatch(part, wanted) for part in (name, name.partition(":")[2]))

    names = [name for name in available() if matches(name.lower())]
    if not names:
        raise ModelError(f"no network's name matches {pattern!r}.")
    listings = [describe(name, count=len(names) <= COUNTED) for name in names]
    if json:
        report.print_json([listing._asdict() for listing in listings])
        return
    table = Table()
    for column in Listing._fields:
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for listing in listings:
        count = "" if listing.parameters is None else f"{listing.parameters:,}"
        table.add_row(listing.name, count, listing.input, listing.source, listing.weights)
    report.console.print(table)
    if len(names) > COUNTED and any(listing.parameters is None for listing in listings):
        report.notes.print(
            f"Numbers of parameters that are in no table are counted for up to {COUNTED} rows."
        )
