"""``torchfbi explain``: photos in; figure, npz and manifest out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from torchfbi import api, plot
from torchfbi.cli import inputs, options, report
from torchfbi.errors import SettingsError
from torchfbi.explanation.explanation import Explanation
from torchfbi.method.settings import Settings
from torchfbi.models import Model
from torchfbi.verification import Verdict


def explain(
    images: options.Images,
    network: Model,
    settings: Settings,
    drawing: options.Drawing,
    target: options.Targets = None,
    top: Annotated[
        int | None,
        typer.Option(help="Explain that many of the most probable classes.", min=1),
    ] = None,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory", help="Run parts of the network twice instead of keeping everything."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", help="Test on the photo whether the explanation holds."
        ),
    ] = True,
    require_verified: Annotated[
        bool,
        typer.Option("--require-verified", help="Exit with 1 unless every explanation holds."),
    ] = False,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="Another input of the network, by the name of its forward's argument: a photo, or "
            "an .npy of shape (1, ...).",
            metavar="NAME=FILE",
        ),
    ] = None,
) -> None:
    """Explain what the network sees in each photo. Several classes share one forward pass."""
    if require_verified and not verify:
        raise SettingsError("--require-verified needs the tests that --no-verify leaves out.")
    if target and top is not None:
        raise SettingsError("--target names classes, --top counts them: give one of the two.")
    targets = [f"top{rank + 1}" for rank in range(top)] if top is not None else target
    names = report.Names(drawing.out)
    results: list[dict[str, Any]] = []
    doubtful: list[Verdict] = []

    # With several images there is a bar already.
    one = report.waiting("testing whether the explanation holds")
    waiting = one if len(images) == 1 else nullcontext()

    others = inputs.read(other or [], network)

    def answers(image: Path) -> Iterator[tuple[dict[str, Any], Explanation]]:
        """Explanations; where there are several inputs, with what each is about."""
        if not others:
            yield {}, api.explain(network, image, targets or None, settings, low_memory=low_memory)
            return
        each: str | None
        for each in targets or (None,):
            found, shares = inputs.explain(network, image, others, each, settings, low_memory)
            if not drawing.json:
                report.print_shares(shares)
            for name, explanation in found.items():
                yield {"input": name, "shares": shares}, explanation

    def work(image: Path) -> None:
        for about, answer in answers(image):
            if verify:
                with waiting:
                    answer = replace(answer, verdicts=answer.verify())
            for explanation in answer:
                keep(image, about, explanation)

    def keep(image: Path, about: dict[str, Any], explanation: Explanation) -> None:
        doubtful.extend(verdict for verdict in explanation.verdicts if not verdict.holds)
        asked = [explanation.title().rpartition(" (")[0]] if targets else []
        name = about.get("input", "")
        files = write(explanation, names.new(image.name, name, *asked), drawing)
        sample = explanation.manifest()["samples"][0]
        results.append({**sample, **about, "files": list(map(str, files))})
        if not drawing.json:
            report.print_top(explanation, name)
            report.print_verdicts(explanation.verdicts)
            report.print_files(files)

    failures = report.each(images, work)
    if drawing.json:
        report.print_json(
            results + [{"photo": str(path), "error": text} for path, text in failures.items()]
        )
    if require_verified and doubtful:
        report.complain(f"{len(doubtful)} of {len(results)} explanations do not hold as a whole.")
    raise typer.Exit(1 if failures or (require_verified and doubtful) else 0)


def write(explanation: Explanation, path: Path, drawing: options.Drawing) -> list[Path]:
    """The figure, the npz and the manifest beside each other; returns their paths."""
    figure = path.with_name(f"{path.name}.{drawing.format}")
    plot.save(explanation.plot(dark=drawing.dark), figure, dpi=drawing.dpi)
    arrays = explanation.save(path.with_name(f"{path.name}.npz"))
    return [figure, arrays, arrays.with_suffix(".json")]
