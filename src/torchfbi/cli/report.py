"""What the commands print: tables, one-line errors, and the list of failed inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.status import Status
from rich.table import Table
from rich.text import Text

from torchfbi.errors import ImageError, InputError
from torchfbi.system.names import shown

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation
    from torchfbi.verification import Verdict


class _Terminal(Console):
    """Shows names and does not obey them: a file or a class may be called by what would clear the
    screen or write into the clipboard."""

    def render(self, *what: Any, **how: Any) -> Iterator[Segment]:
        """What is shown, piece by piece."""
        for text, style, control in super().render(*what, **how):
            yield Segment(text if control else shown(text), style, control)


console, notes = (
    _Terminal(stderr=stderr, markup=False, emoji=False, highlight=False) for stderr in (False, True)
)


def complain(message: str) -> None:
    """One error on standard error."""
    notes.print(f"torchfbi: {message}", style="red", soft_wrap=True)


def print_json(result: Any) -> None:
    """Plain JSON on standard output, and nothing else."""
    typer.echo(json.dumps(result, indent=2))


def print_shares(shares: dict[str, float]) -> None:
    """What each of several inputs contributes to the answer."""
    console.print(", ".join(f"{name}: {share:.1%}" for name, share in shares.items()))


def print_top(explanation: Explanation, about: str = "", index: int = 0) -> None:
    """The five most probable classes as a table, the probed one marked.

    Args:
        about: the input that is explained, where there are several.
    """
    target = None if explanation.target is None else int(explanation.target[index])
    photo = [explanation.photos[index].name] if explanation.photos else []
    title = ": ".join(filter(None, [about, *photo]))
    table = Table(title=title, title_justify="left")
    table.add_column("class", justify="right")
    table.add_column("name")
    table.add_column("probability", justify="right")
    for number, name, probability in explanation.top(5, index):
        mark = "bold green" if number == target else None
        table.add_row(str(number), name, f"{probability:.1%}", style=mark)
    console.print(table)
    warn(explanation.warnings(index))
    console.print(f"explained: {explanation.title(index)}")
    console.print(support_line(explanation, index))


def support_line(explanation: Explanation, index: int = 0) -> str:
    """How large the support is, in words."""
    density = explanation.density[index].item()
    return explanation.emptiness(index) or f"support: {density:.1%} of the pixels the network saw"


def print_line(explanation: Explanation, about: str, figure: Path, index: int = 0) -> None:
    """A photo in one line: what the network says, whether the explanation holds, the figure.

    Args:
        about: the input that is explained, where there are several.
        figure: where it lies.
    """
    photo = [explanation.photos[index].name] if explanation.photos else []
    (_, said, probability), *_ = explanation.top(1, index) or [(0, "", 0.0)]
    asked = explanation.title(index)
    words = [f"{said} {probability:.1%}"] if said else []
    words += [f"explained: {asked}"] if asked.rpartition(" (")[0] != said else []
    words += [explanation.verdicts[index].ruling] if explanation.verdicts else []
    line = f"{': '.join(filter(None, [about, *photo]))}: {'; '.join(words)}; {figure}"
    console.print(line, soft_wrap=True)
    warn(explanation.warnings(index))


said = set[str]()
"""What was warned of in this run: what holds for all photos is said once."""


def warn(texts: Sequence[str]) -> None:
    """What has to be known first, on standard error, so that it is seen where results are piped."""
    for text in texts:
        if text not in said:
            said.add(text)
            notes.print(text, style="bold yellow")


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Whether explanations hold, in words."""
    for verdict in verdicts:
        style = {"holds": "green", "holds in part": "yellow", "does not hold": "red"}
        console.print(f"verified: {verdict.ruling}", style=style[verdict.ruling])
        console.print(verdict.sentence)


def print_files(files: list[Path]) -> None:
    """Where the results lie."""
    for file in files:
        console.print(f"written: {file}", soft_wrap=True)


def waiting(what: str) -> Status:
    """While it is entered, a terminal's last line says what takes so long."""
    return notes.status(Text(what))


def each(images: list[Path], work: Callable[[Path], None]) -> dict[Path, str]:
    """Do ``work`` for every image; a bad one does not stop the others.

    Returns:
        The message of each of several images that failed; they are listed on standard error.

    Raises:
        ImageError, InputError: the only image failed.
    """
    failures: dict[Path, str] = {}
    for image in _progress(images):
        try:
            work(image)
        except (ImageError, InputError) as error:
            if len(images) == 1:
                raise
            failures[image] = str(error)
    if failures:
        complain(f"{len(failures)} of {len(images)} images failed:")
        for message in failures.values():
            complain(f"  {message}")
    return failures


def bar(*more: ProgressColumn, **options: Any) -> Progress:
    """A progress bar on standard error, which leaves nothing behind: what is done, how much of
    how much, anything ``more``, and the time left."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *more,
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=notes, transient=True, **options)


def _progress(images: list[Path]) -> Iterator[Path]:
    if len(images) == 1:
        yield images[0]
        return
    with bar() as progress:
        task = progress.add_task("", total=len(images))
        for image in images:
            progress.update(task, description=image.name)
            yield image
            progress.advance(task)


LONGEST_NAME = 50
"""Characters of a result's name before its number and suffix: of four bytes each they fit into the
255 bytes that file systems have."""


class Names:
    """File names for results: the photo's stem and the class asked for, never twice the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    def new(self, image: str, *parts: str) -> Path:
        """A path without suffix in the folder."""
        words = [re.sub(r"[^\w]+", "-", part).strip("-") for part in (Path(image).stem, *parts)]
        base = "-".join(filter(None, words))[:LONGEST_NAME] or "image"
        name, number = base, 2
        while name.casefold() in self._taken:  # some file systems do not tell A from a
            name, number = f"{base}-{number}", number + 1
        self._taken.add(name.casefold())
        return self.folder / name
