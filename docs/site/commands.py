"""The reference of the command line, written from the commands themselves."""

from __future__ import annotations

from typing import Any

import typer

PLACE = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the reference where a page has its place."""
    return markdown.replace(PLACE, "\n\n".join(sections())) if PLACE in markdown else markdown


def sections() -> list[str]:
    """One section a command."""
    from torchfbi.cli.main import app  # takes seconds: only where it is needed

    group: Any = typer.main.get_command(app)
    return [section(name, later.real()) for name, later in group.commands.items()]


def section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join([f"torchfbi {name}", *(_metavar(a) for a in arguments), "[OPTIONS]"])
    rows = [*(_row(_metavar(a), a) for a in arguments), *(_row(_names(o), o) for o in options)]
    table = "\n".join(["| | | default |", "|---|---|---|", *rows])
    return f"## {name}\n\n{command.help}\n\n```text\n{usage}\n```\n\n{table}"


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(option: Any) -> str:
    return ", ".join([*option.opts, *option.secondary_opts])


def _row(name: str, parameter: Any) -> str:
    default = parameter.default
    shown = getattr(parameter, "show_default", True) and not getattr(parameter, "is_flag", False)
    if isinstance(default, list | tuple):
        default = " ".join(map(str, default))
    value = f"`{default}`" if shown and default not in (None, "") and not callable(default) else ""
    text = (parameter.help or "").replace("|", "\\|").replace("*", "\\*")
    return f"| `{name}` | {text} | {value} |"
