"""The rows as a page of documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from survey.examine import Row
from torchfbi.method.settings import PRESETS

LANDMARKS = {"torchvision:mobilenet_v2", "torchvision:resnet50", "torchvision:vgg16"}
"""What their capture costs is always listed."""

EXACT = 1e-9
"""What is equal but for rounding in float64."""

_INTRODUCTION = """\
# Architectures

Written by `make survey`; do not edit. Every network has random weights, batch norm statistics
and layer scales, so that no branch is dead, and is examined in float64, with two images of the
smallest side out of 64, 96, 128, 192, 224, 256 pixels and its own that it takes; a network of timm
that can be made for images of 96, 112 or 128 pixels is. One kind of each family is examined first,
and of each kind the smallest of those whose names differ only in words and numbers of size. Before
attention was walked, 221 of 330 kinds of timm were explained (67 %) and 68 of torchvision's 80
architectures.

- **explained**: captured, with the module's own logits (within 1e-9), explained with finite values
  in `paper`, `contrast` and `plain`, and `plain` is what autograd says (within 1e-9).
- **gradient**: of those, the networks in which the walk holds nothing constant. There `plain` must
  equal autograd's gradient.
- **value path**: of those, the networks in which it holds something: attention's weights, a gate,
  a norm's statistics. There `plain` must equal autograd's gradient with all of that detached.
- **attention**: networks with a product of two activations, one of which is known to be weights.
"""


def page(rows: Iterable[Row], members: Counter[str]) -> str:
    """Markdown: a table for each library, what was refused and why, and what captures cost.

    Args:
        rows: what was examined.
        members: how many architectures each family has in all.
    """
    rows = sorted(rows, key=lambda row: (row.family, row.name))
    parts = [_INTRODUCTION]
    for library, found in groupby(rows, lambda row: row.family.partition(":")[0]):
        parts.append(_table(library, list(found), members))
    parts += [_refusals(rows), _captures(rows)]
    return "\n".join(parts)


def works(row: Row) -> bool:
    """Captured with the same logits, explained in all presets, and what autograd says."""
    exact = row.gradient_error is not None and row.gradient_error <= EXACT
    same = row.logits_error is not None and row.logits_error <= EXACT
    return exact and same and set(row.explained) == set(PRESETS)


def _table(library: str, rows: list[Row], members: Counter[str]) -> str:
    good, families = [row for row in rows if works(row)], {row.family for row in rows}
    failing = {row.family for row in rows if not works(row)}
    lines = [
        f"## {library}\n",
        f"{len(good)} of {len(rows)} architectures explained ({len(good) / len(rows):.1%}), "
        f"{len(families - failing)} of {len(families)} families without exception; "
        f"{len(rows)} examined of "
        f"{sum(n for name, n in members.items() if name.startswith(library + ':'))}.\n",
        "| family | has | examined | explained | gradient | value path | attention | refused |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, found in groupby(rows, lambda row: row.family):
        lines.append(_line(name, list(found), members[name]))
    return "\n".join(lines) + "\n"


def _line(name: str, rows: list[Row], has: int) -> str:
    good = [row for row in rows if works(row)]
    cells = [
        name.partition(":")[2],
        has,
        len(rows),
        len(good) or "",
        sum(not row.holds for row in good) or "",
        sum(row.holds for row in good) or "",
        sum(row.kind == "attention" for row in good) or "",
        len(rows) - len(good) or "",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _refusals(rows: list[Row]) -> str:
    lines = ["## Refused, and why\n"]
    lines += [f"- `{row.name}`: {_reason(row)}" for row in rows if not works(row)]
    return "\n".join(lines) + "\n"


def _reason(row: Row) -> str:
    if row.missing:
        return ", ".join(f"`{operator}` ({n})" for operator, n in row.missing.items())
    if row.refused:
        return row.refused
    numbers = f"logits {row.logits_error:.0e}, gradient {row.gradient_error}"
    return f"explained in {', '.join(row.explained)}; {numbers}"


def _captures(rows: list[Row]) -> str:
    order = sorted(rows, key=lambda row: -row.seconds)
    slowest = [*order[:10], *(row for row in order[10:] if row.name in LANDMARKS)]
    lines = [
        "## Slowest captures\n",
        "Processor time, only the first time: the graph is kept, and a second explanation pays\n"
        "nothing. Nearly all of it is `torch.export`, by the number of operators; the size of the\n"
        "images makes no difference. `torchfbi bench` shows the seconds on your machine.\n",
        "| architecture | parameters | side | seconds |",
        "|---|--:|--:|--:|",
    ]
    lines += [f"| {r.name} | {r.parameters:,} | {r.side} | {r.seconds:.1f} |" for r in slowest]
    return "\n".join(lines) + "\n"
