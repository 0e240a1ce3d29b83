"""HTML pages that need nothing else: no script, no file, no connection."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader

from torchfbi import atomic

Filters = dict[str, Callable[..., Any]]


def render(package: str, template: str, filters: Filters | None = None, **names: Any) -> str:
    """A page from a template in the ``templates`` of a package; all that it is given is escaped.

    The template may extend ``page.html``, which has the look that all pages share.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("torchfbi.system")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(**names)


def save(html: str, path: str | os.PathLike[str]) -> Path:
    """Write a page, and make its folder; returns its path."""
    atomic.write(Path(path), html.encode("utf-8", "backslashreplace"))
    return Path(path)
