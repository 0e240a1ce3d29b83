"""How many parameters networks have whose libraries do not publish it: a table, counted once by
``docs/parameters.py``."""

from __future__ import annotations

import functools
import json
from importlib import resources

_FILE = "parameters.json"


@functools.cache
def _table() -> dict[str, int]:
    text = resources.files("torchfbi.models").joinpath(_FILE).read_text(encoding="utf-8")
    table: dict[str, int] = json.loads(text)
    return table


def known(name: str) -> int | None:
    """The number of parameters of a network, or None where it was not counted.

    Args:
        name: ``"keras:vgg16"``, ``"timm:resnet50"``, or with a tag of published weights
            ``"timm:resnet50.a1_in1k"``, which is listed only where their classes make it differ.
    """
    table = _table()
    return table.get(name, table.get(name.partition(".")[0]))
