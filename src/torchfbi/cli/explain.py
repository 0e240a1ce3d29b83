"""``torchfbi explain``: photos in; figure, npz and manifest out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchfbi.cli import options, report
from torchfbi.errors import SettingsError

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation
    from torchfbi.method.settings import Settings
    from torchfbi.models import Model
    from torchfbi.verification import Verdict

MANY = 3
"""Of more photos there is an overview."""


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
    other: options.Input = None,
) -> None:
    """Explain what the network sees in each photo. Several classes share one forward pass."""
    from torchfbi import api
    from torchfbi.cli import inputs

    if require_verified and not verify:
        raise SettingsError("--require-verified needs the tests that --no-verify leaves out.")
    if target and top is not None:
        raise SettingsError("--target names classes, --top counts them: give one of the two.")
    targets = [f"top{rank + 1}" for rank in range(top)] if top is not None else target
    names = report.Names(drawing.out)
    results: list[dict[str, Any]] = []
    doubtful: list[Verdict] = []
    entries: list[Any] = []

    # With several images there is a bar already.
    one = report.waiting("explaining, and testing whether it holds")
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
        with waiting:
            found = [
                (about, replace(answer, verdicts=answer.verify()) if verify else answer)
                for about, answer in answers(image)
            ]
        for about, answer in found:
            for explanation in answer:
                keep(image, about, explanation)

    def keep(image: Path, about: dict[str, Any], explanation: Explanation) -> None:
        doubtful.extend(verdict for verdict in explanation.verdicts if not verdict.holds)
        asked = [explanation.title().rpartition(" (")[0]] if targets else []
        name = about.get("input", "")
        files = write(explanation, names.new(image.name, name, *asked), drawing)
        sample = explanation.manifest()["samples"][0]
        results.append({**sample, **about, "files": list(map(str, files))})
        if len(images) > MANY and explanation.logits.ndim == 2 and not about:
            entries.append(_entry(explanation, image, files[0]))
        if not drawing.json:
            _print(explanation, files, name, alone=len(images) == 1)

    failures = report.each(images, work)
    overview = _overview(entries, failures, network, drawing) if len(images) > MANY else None
    if overview is not None:
        report.notes.print(f"written: {overview}", soft_wrap=True)
    if drawing.json:
        report.print_json(
            results + [{"photo": str(path), "error": text} for path, text in failures.items()]
        )
    if results:
        drawing.show(overview or Path(results[0]["files"][0]))
    if require_verified and doubtful:
        report.complain(f"{len(doubtful)} of {len(results)} explanations do not hold as a whole.")
    raise typer.Exit(1 if failures or (require_verified and doubtful) else 0)


def write(explanation: Explanation, path: Path, drawing: options.Drawing) -> list[Path]:
    """The figure, the npz and the manifest beside each other; returns their paths."""
    from torchfbi import plot

    figure = path.with_name(f"{path.name}.{drawing.format}")
    plot.save(explanation.plot(dark=drawing.dark), figure, dpi=drawing.dpi)
    arrays = explanation.save(path.with_name(f"{path.name}.npz"))
    return [figure, arrays, arrays.with_suffix(".json")]


def _print(explanation: Explanation, files: list[Path], name: str, alone: bool) -> None:
    """All about one photo, or a line about each of several."""
    if alone:
        report.print_top(explanation, name)
        report.print_verdicts(explanation.verdicts)
        report.print_files(files)
    else:
        report.print_line(explanation, name, files[0])


def _entry(explanation: Explanation, image: Path, figure: Path) -> Any:
    from torchfbi.plot.overview import entry

    return replace(entry(explanation, link=figure.name), name=str(image))


def _overview(
    entries: list[Any], failures: dict[Path, str], network: Model, drawing: options.Drawing
) -> Path:
    """All photos on a page; returns its path."""
    from torchfbi.plot.overview import Entry, overview, with_truth
    from torchfbi.system import page

    failed = [Entry(str(image), error=text) for image, text in failures.items()]
    shown = with_truth([*entries, *failed], network.labels)
    about = " ".join([f"Explained with {network.name}.", *network.warnings()])
    html = overview(shown, f"{len(shown)} explanations", about)
    return page.save(html, drawing.out / "overview.html")
