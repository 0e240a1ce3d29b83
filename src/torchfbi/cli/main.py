"""``torchfbi``: the entry point, and how errors become one line and an exit code.

Exit codes: 0 done, 1 some inputs failed (they are listed), 2 bad usage or input.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from torchfbi.cli import options
from torchfbi.cli.batch import batch
from torchfbi.cli.bench import bench
from torchfbi.cli.check import check, models
from torchfbi.cli.compare import compare
from torchfbi.cli.demo import demo
from torchfbi.cli.evaluate import evaluate
from torchfbi.cli.explain import explain
from torchfbi.cli.export import export
from torchfbi.cli.flow import flow
from torchfbi.cli.report import complain
from torchfbi.cli.serve import serve
from torchfbi.cli.summarize import summarize
from torchfbi.cli.sweep import sweep
from torchfbi.errors import TorchFBIError
from torchfbi.evaluate import METRICS
from torchfbi.evaluate.benchmark import SUITES
from torchfbi.evaluate.peers import METHODS
from torchfbi.system.versions import versions

STOPPED = 130
"""The exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="torchfbi",
    help="Which pixels made a convolutional network say that, and how the information got there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    explain, batch, summarize, flow, compare, sweep, evaluate, export, check, models, bench,
    demo, serve,
):  # fmt: skip
    app.command()(options.command(command))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(", ".join(f"{name} {number}" for name, number in versions().items()))
        raise typer.Exit


@app.callback()
def before(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Options before the command."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Args:
        arguments: what follows the program's name; ``sys.argv`` by default.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(separate_values(arguments), standalone_mode=False, prog_name="torchfbi")
    except TorchFBIError as error:
        complain(str(error))
        code = 2
    except OSError as error:
        complain(f"{error.filename or 'file system'}: {error.strerror or error}")
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except Exception as error:
        # Newer versions of Typer have a click of their own: usage errors are known by shape.
        if not hasattr(error, "format_message"):
            raise
        if message := error.format_message():  # none where the help was shown instead
            complain(message)
        code = 2
    if code == STOPPED:  # newer versions of Typer make the code of Ctrl-C themselves
        complain("stopped; what was written so far is complete.")
    sys.exit(code or 0)


def separate_values(arguments: list[str]) -> list[str]:
    """``--k 0.1 0.5 1`` as the parser wants it: ``--k 0.1 --k 0.5 --k 1``."""
    lists = {"--mean": _is_number, "--std": _is_number, **_LISTS.get("".join(arguments[:1]), {})}
    separated: list[str] = []
    option = None
    for argument in arguments:
        if option is None or not lists[option](argument):
            option = argument if argument in lists else None
        elif separated[-1] != option:
            separated.append(option)
        separated.append(argument)
    return separated


def _is_number(argument: str) -> bool:
    return _VALUE.fullmatch(argument) is not None


def _is_name(argument: str) -> bool:
    """Names of methods, metrics and suites, misspelt ones too; but not a file or folder."""
    known = argument in {*METHODS, *METRICS, *SUITES}
    return known or (_NAME.fullmatch(argument) is not None and not Path(argument).exists())


_VALUE = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")
_NAME = re.compile(r"[a-z][\w+:,-]*", re.IGNORECASE)
_LISTS = {
    "sweep": dict.fromkeys(("--k", "--tau"), _is_number),
    "compare": {"--methods": _is_name},
    "evaluate": dict.fromkeys(("--methods", "--metrics", "--suites"), _is_name),
}


if __name__ == "__main__":
    main()
