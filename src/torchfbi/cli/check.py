"""``torchfbi check`` and ``torchfbi models``: what can be explained, and what can be loaded."""

from __future__ import annotations

import fnmatch
import time
from typing import Annotated

import torch
import typer
from rich.table import Table

from torchfbi.capture.capture import capture
from torchfbi.cli import options, report
from torchfbi.errors import ModelError, UnsupportedOperatorError
from torchfbi.method.graph import is_activation
from torchfbi.models import Listing, available, describe, load

COUNTED = 20
"""How many networks at most are built for no more than the number of their parameters."""


def check(
    model: Annotated[str, typer.Argument(help="As --model of the other commands takes it.")],
    json: options.Json = False,
) -> None:
    """Say whether every operator of a network has an adjoint, without explaining anything."""
    network = load(model, pretrained=False)  # the weights do not matter here
    example = torch.zeros(1, len(network.preprocess.mean), *network.preprocess.size)
    example = example.to(next(network.module.parameters(), example))
    start = time.perf_counter()
    missing: dict[str, list[str]] = {}
    operators: dict[str, list[str]] = {}
    features = []
    try:
        graph = capture(network.module, example)
        for node in graph.nodes:
            operators.setdefault(str(node.target), []).append(node.meta["layer"])
        features = [node.meta["layer"] for node in graph.nodes if is_activation(node)]
    except UnsupportedOperatorError as error:
        missing = error.operators
    seconds = time.perf_counter() - start
    if json:
        report.print_json(
            {
                "model": network.name,
                "explainable": not missing,
                "missing": missing,
                "operators": {name: len(layers) for name, layers in operators.items()},
                "features": features,
                "seconds": seconds,
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
    if missing:
        report.complain(str(UnsupportedOperatorError(missing)))
        raise typer.Exit(2)


def models(
    pattern: Annotated[
        str, typer.Argument(help="For example resnet1* or timm:*; a part of the name will do.")
    ] = "*",
    json: options.Json = False,
) -> None:
    """List the networks that can be loaded."""
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
