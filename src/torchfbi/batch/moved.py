"""What changed between two runs over the same images: last night's and tonight's."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from torchfbi.batch.evidence import apart, evidence_map, profile
from torchfbi.batch.store import Store
from torchfbi.batch.summary import NEAR
from torchfbi.models.images import Array

COLUMNS = ("index", "path", "sha256", "label", "probability", "support", "values", "error")


@dataclass(frozen=True)
class Moved:
    """An image of both runs whose answer or whose evidence is another one now.

    Args:
        path: of the image, now.
        before, now: the label, with its probability; or the error.
        relabelled: whether the class is another one.
        distance: how far the evidence moved, in sides of the picture (``evidence.apart``); None
            where one of the two has none.
    """

    path: str
    before: str
    now: str
    relabelled: bool
    distance: float | None


@dataclass(frozen=True)
class Changes:
    """Two runs beside each other.

    Args:
        both: how many images of the later run the earlier has, by the bytes of their files.
        new: how many it has not.
        gone: how many different ones only the earlier run has.
        moved: images of both whose class changed, those first, or whose evidence moved by at least
            ``NEAR``, the farthest first.
    """

    both: int
    new: int
    gone: int
    moved: tuple[Moved, ...]


def changes(before: str | os.PathLike[str], now: str | os.PathLike[str]) -> Changes:
    """Compare the rows of two folders that ``run`` wrote.

    Raises:
        FileFormatError: one of them holds no rows, or a file is damaged.
    """
    earlier = {_key(row): _remembered(row) for row in Store(before).every(COLUMNS)}
    met, both, new, moved = set[str](), 0, 0, []
    for row in Store(now).every(COLUMNS):
        key = _key(row)
        if key not in earlier:
            new += 1
            continue
        met.add(key)
        both += 1
        label, told, place = _remembered(row)
        label_before, told_before, place_before = earlier[key]
        distance = None
        if place is not None and place_before is not None:
            distance = float(apart(place[None], place_before)[0])
        found = Moved(row["path"], told_before, told, label != label_before, distance)
        if found.relabelled or (distance is not None and distance >= NEAR):
            moved.append(found)
    moved.sort(key=lambda one: (not one.relabelled, -(one.distance or 0), one.path))
    return Changes(both, new, len(earlier.keys() - met), tuple(moved))


def _key(row: dict[str, Any]) -> str:
    return row["sha256"] or row["path"]


def _remembered(row: dict[str, Any]) -> tuple[str, str, Array | None]:
    """The label, or the error; the same with its probability; and where the evidence lies."""
    if row["error"] is not None:
        return row["error"], f"failed: {row['error']}", None
    return row["label"], f"{row['label']} {row['probability']:.1%}", profile(evidence_map(row))
