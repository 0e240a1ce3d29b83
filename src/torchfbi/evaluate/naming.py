"""Methods under names that tell them apart, and errors in a line."""

from __future__ import annotations

from dataclasses import fields, replace

from torchfbi.errors import SettingsError
from torchfbi.evaluate import peers
from torchfbi.evaluate.controls import CONTROLS
from torchfbi.evaluate.peers import Method
from torchfbi.method.settings import PRESETS, Settings


def named(method: str | Settings | Method) -> Method:
    """A method as ``peers.find`` gives it, or one of ``CONTROLS``; settings are called by what was
    changed about them.

    Raises:
        SettingsError: there is no such method.
    """
    if isinstance(method, str) and method in CONTROLS:
        return CONTROLS[method]
    found = peers.find(method)
    if not isinstance(method, Settings):
        return found
    known = method.preset in PRESETS
    base = Settings.from_preset(method.preset) if known else Settings(method.preset)
    changes = [
        f"{field.name}={getattr(method, field.name)}"
        for field in fields(method)
        if getattr(method, field.name) != getattr(base, field.name)
    ]
    return replace(found, name=", ".join([found.name, *changes]))


def check_unique(kind: str, names: list[str]) -> None:
    """Whether there is at least one name, and none twice.

    Raises:
        SettingsError: otherwise.
    """
    if not names:
        raise SettingsError(f"no {kind} is named: give at least one.")
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"two {kind}s are called {name!r}: give each once.")
