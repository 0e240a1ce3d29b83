"""The pages of a folder of rows: the summary, and the overview of all images."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from torchfbi.batch.evidence import evidence_map, seen
from torchfbi.batch.shortcuts import FEWEST
from torchfbi.batch.store import Store
from torchfbi.batch.summary import ClassSummary, Summary
from torchfbi.models.model import guessed
from torchfbi.models.preprocess import Preprocess
from torchfbi.system import page

COLUMNS = ("index", "path", "label", "probability", "image", "support", "values", "error")

CLASSES = 60
"""Of so many classes the page shows the mean support map."""

STRAYS = 8
"""So many strays of a class are shown; all of them are in the table of ``summarize --json``."""

OVERVIEW = (*COLUMNS, "target", "logits", "verdict")


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
        fewest=FEWEST,
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


def overview_page(store: Store, summary: Summary) -> str:
    """Every image of the rows as a thumbnail, what needs a look first, as HTML."""
    from torchfbi.plot.overview import Entry, overview, with_truth

    manifest = store.manifest() or {}
    strays = {stray.index: stray for one in summary.classes for stray in one.strays}
    names = manifest.get("classes", ())

    def entry(row: dict[str, Any]) -> Entry:
        if row["error"] is not None:
            return Entry(row["path"], error=row["error"])
        said, probability = row["label"], row["probability"]
        best = int(np.argmax(row["logits"]))
        if best != row["target"]:  # a class was asked for
            said = names[best] if best < len(names) else f"class {best}"
            probability = None
        verdict = json.loads(row["verdict"]) if row.get("verdict") else {}
        stray = strays.get(row["index"])
        return Entry(
            row["path"],
            _tiny(row),
            said,
            probability,
            asked="" if probability else f"{row['label']} {row['probability']:.1%}",
            ruling=verdict.get("ruling", ""),
            sentence=verdict.get("sentence", ""),
            note="" if stray is None else f"strays: {stray.where}",
        )

    assumed = guessed(Preprocess.from_dict(manifest["preprocess"]), manifest.get("assumed", ()))
    about = f"Explained with {manifest['model']} ({manifest['settings']['preset']} settings)."
    entries = [entry(row) for row in store.every(OVERVIEW)]
    labels = names or {one.said for one in entries}
    return overview(
        with_truth(entries, labels),
        f"{store.folder.resolve().name}: {len(entries):,} images",
        " ".join([about, *assumed]),
    )


def _tiny(row: dict[str, Any]) -> str:
    from torchfbi.plot import thumbnail

    return thumbnail.tiny(seen(row), evidence_map(row))


def picture(row: dict[str, Any]) -> str:
    """What the network saw with the evidence over it, as PNG in base64."""
    from torchfbi.plot import thumbnail

    return thumbnail.over(seen(row), evidence_map(row))
