"""``torchfbi``: the entry point, and how errors become one line and an exit code.

Exit codes: 0 done, 1 some inputs failed (they are listed), 2 bad usage or input.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from torchfbi.cli import report
from torchfbi.cli.report import complain
from torchfbi.errors import TorchFBIError

STOPPED = 130
"""The exit code after Ctrl-C, as shells have it."""

COMMANDS = {
    "explain": "Explain what the network sees in each photo. Several classes share one forward "
    "pass.",
    "batch": "Explain every image of a data set; a bad one is a row with its error.",
    "summarize": "Show where the evidence lies in each class, and which images stray from theirs.",
    "flow": "Draw how the information flows from the top feature maps to the pixels.",
    "video": "Explain a clip frame by frame, one class all along. Ctrl-C keeps what is done.",
    "compare": "Draw what several methods, or networks, say about the same images and classes.",
    "sweep": "Draw the explanation for every k and tau, with what it does to the class.",
    "evaluate": "Judge methods by metrics: a table with intervals, CSV, JSON and a report in HTML.",
    "export": "Write forward pass and backward walk as one graph, verified against this explainer.",
    "check": "Say whether every operator of a network has an adjoint, without explaining anything.",
    "models": "List the networks that can be loaded.",
    "bench": "Time explanations against the forward pass, all in turn, and measure their memory.",
    "demo": "Explain a photo of an espresso with the network that comes along, and test what came "
    "out.",
    "photos": "Put the two photos that come along, cat.jpg and coffee.jpg, into a folder.",
    "serve": "Serve the web page: photos in, explanations out, by clicking. Nothing leaves this "
    "machine.",
}
"""Every command with what its help begins with: what stands here needs no import."""

MODULES = {"models": "check", "photos": "demo"}
"""The module of ``torchfbi.cli`` that has a command, where it is not called as the command."""


class Later(TyperCommand):
    """A command whose module is imported when it runs or is asked for its options: PyTorch and
    Matplotlib take seconds."""

    def __init__(self, name: str) -> None:
        super().__init__(name, help=COMMANDS[name])

    def real(self) -> Any:
        """The command itself."""
        from torchfbi.cli import options

        name = str(self.name)
        module = importlib.import_module(f"torchfbi.cli.{MODULES.get(name, name)}")
        alone = typer.Typer(add_completion=False)
        alone.command(name)(options.command(getattr(module, name)))
        return typer.main.get_command(alone)

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Of the command itself, which from here on is what runs."""
        return self.real().make_context(*arguments, **options)


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        attributes["commands"] = {name: Later(name) for name in COMMANDS}
        super().__init__(**attributes)


app = typer.Typer(
    name="torchfbi",
    cls=_Group,
    help="Which pixels made a convolutional network say that, and how the information got there.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from torchfbi.system.versions import versions

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
    report.said.clear()
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
        usage, code = getattr(error, "format_message", None), STOPPED
        if usage is None and not _interrupted(error):
            raise
        if usage is not None:
            code = 2
            if message := usage():  # none where the help was shown instead
                complain(message)
    if code == STOPPED:  # newer versions of Typer make the code of Ctrl-C themselves
        complain("stopped; what was written so far is complete.")
    sys.exit(code or 0)


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind it: while modules are imported, others wrap what they catch."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or _interrupted(error.__cause__ or error.__context__)
    )


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
    from torchfbi.evaluate import METRICS
    from torchfbi.evaluate.benchmark import SUITES
    from torchfbi.evaluate.peers import METHODS

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
