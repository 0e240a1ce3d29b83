"""The pages of a folder of rows: the summary, and contact sheets of all images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from torchfbi.batch.evidence import evidence_map
from torchfbi.batch.store import Store
from torchfbi.batch.summary import ClassSummary, Summary
from torchfbi.system import page

COLUMNS = ("index", "path", "label", "probability", "image", "support", "values", "error")

CLASSES = 60
"""Of so many classes the page shows the mean support map."""

STRAYS = 8
"""So many strays of a class are shown; all of them are in the table of ``summarize --json``."""

PER_SHEET = 200
"""Images on a contact sheet: about 3 MB."""


def summary_page(store: Store, summary: Summary) -> str:
    """The summary as HTML."""
    shown = sorted(
        summary.classes, key=lambda c: (not c.strays, -len(c.strays), -c.elsewhere, -c.images)
    )[:CLASSES]
    wanted = {stray.index for one in shown for stray in one.strays[:STRAYS]}
    from torchfbi.plot import thumbnail  # Matplotlib, which no process that makes rows needs

    pictures = {row["index"]: picture(row) for row in store.every(COLUMNS, wanted)}
    return page.render(
        "torchfbi.batch",
        "summary.html",
        {"of_class": lambda one: thumbnail.alone(one.support)},
        name=store.folder.resolve().name,
        manifest=store.manifest() or {},
        summary=summary,
        shown=shown,
        strays=STRAYS,
        pictures=pictures,
        remark=remark,
    )


def remark(one: ClassSummary) -> str:
    """What a class's numbers say, in a sentence."""
    if one.images == one.empty:
        return "All supports are empty."
    return (
        f"Half of the supports cover {one.fraction[0]:.1%} to {one.fraction[2]:.1%} of the "
        f"picture; {one.rim:.0%} of the evidence lies at its rim."
    )


def contact_sheets(store: Store) -> Iterator[Path]:
    """Write ``contact-1.html`` and so on: every image with its support, or its error."""
    manifest, todo = store.manifest() or {}, store.every(COLUMNS)
    total = store.count()
    count = -(-total // PER_SHEET)
    for number in range(1, count + 1):
        part = list(islice(todo, PER_SHEET))
        html = page.render(
            "torchfbi.batch",
            "contact.html",
            {"picture": picture},
            name=store.folder.resolve().name,
            manifest=manifest,
            number=number,
            count=count,
            total=total,
            rows=part,
        )
        yield page.save(html, store.folder / f"contact-{number}.html")


def picture(row: dict[str, Any]) -> str:
    """What the network saw with the evidence over it, as PNG in base64."""
    from torchfbi.plot import thumbnail

    seen = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
    return thumbnail.over(seen, evidence_map(row))
