"""What a data set's explanations have in common, class by class, and which images stray."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from torchfbi.batch.evidence import (
    apart,
    centre,
    evidence_map,
    middle,
    profile,
    rim_share,
    support_map,
)
from torchfbi.batch.shortcuts import FEWEST, Verdicts, Verified
from torchfbi.batch.store import Store
from torchfbi.models.images import Array

COLUMNS = (
    *("index", "path", "target", "label", "probability"),
    *("support", "fraction", "values", "error", "verdict", "sufficient"),
)

FAR = 3.5
"""Modified z-score from which on an image strays (Iglewicz and Hoaglin 1993)."""

NEAR = 0.05
"""Of a side: below this distance nothing is worth a look, however alike the others are."""


@dataclass(frozen=True)
class Stray:
    """An image whose evidence lies far from where its class has it.

    Args:
        index, path: which.
        probability: of the class.
        fraction: the support's share of the pixels.
        distance: from the class's place, in sides of the picture.
        score: modified z-score of the distance among those of the class.
        right, down: how far its centre lies from the class's, in sides.
    """

    index: int
    path: str
    probability: float
    fraction: float
    distance: float
    score: float
    right: float
    down: float

    @property
    def where(self) -> str:
        """In words."""
        sideways = f"{abs(self.right):.0%} further {'right' if self.right > 0 else 'left'}"
        upright = f"{abs(self.down):.0%} further {'down' if self.down > 0 else 'up'}"
        moved = [(abs(self.right), sideways), (abs(self.down), upright)]
        told = [text for size, text in moved if size >= 0.05]
        return ", ".join(told) or "spread otherwise around the same centre"


@dataclass(frozen=True, eq=False)
class ClassSummary:
    """One class: all images for which it was explained.

    Args:
        target, label: which.
        images: how many.
        empty: how many of them have an empty support.
        support: the mean support map, float (H, W) in [0, 1].
        fraction: quartiles of the support's share of the pixels, low, median, high.
        rim: the mean share of the evidence at the picture's rim.
        elsewhere: the distance of the class's place from that of all classes, in sides.
        strays: the images far from the class's place, the farthest first.
        verified: what the verdicts have in common; None where nothing was verified.
    """

    target: int
    label: str
    images: int
    empty: int
    support: Array
    fraction: tuple[float, float, float]
    rim: float
    elsewhere: float
    strays: tuple[Stray, ...]
    verified: Verified | None = None


@dataclass(frozen=True, eq=False)
class Summary:
    """A folder of rows.

    Args:
        images, failed: how many rows, and how many of them are errors.
        classes: the most frequent first.
    """

    images: int
    failed: int
    classes: tuple[ClassSummary, ...]

    @property
    def frequent(self) -> tuple[ClassSummary, ...]:
        """The classes of which enough is known to have a line each."""
        return tuple(one for one in self.classes if one.images >= FEWEST)

    @property
    def rare(self) -> tuple[ClassSummary, ...]:
        """The others, which share one."""
        return self.classes[len(self.frequent) :]  # they are sorted

    @property
    def shortcuts(self) -> tuple[ClassSummary, ...]:
        """The classes that may be recognised by a shortcut, those with most signs of it first,
        and of equally many the one whose evidence lies closest together."""
        found = [(c, c.verified) for c in self.classes if c.verified and c.verified.signs]
        found.sort(key=lambda pair: (-len(pair[1].signs), pair[1].spread))
        return tuple(one for one, _ in found)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the mean support maps are left to the page."""
        return {
            "images": self.images,
            "failed": self.failed,
            "classes": [
                {
                    "target": one.target,
                    "label": one.label,
                    "images": one.images,
                    "empty": one.empty,
                    "fraction": dict(zip(("low", "median", "high"), one.fraction, strict=True)),
                    "rim": one.rim,
                    "elsewhere": one.elsewhere,
                    "strays": [{**asdict(s), "where": s.where} for s in one.strays],
                    "verified": one.verified and asdict(one.verified),
                }
                for one in self.classes
            ],
            "shortcuts": [one.label for one in self.shortcuts],
        }


@dataclass(eq=False)
class _Gathered:
    """What is remembered of a class while the shards go by: a few hundred bytes an image."""

    label: str
    support: Array
    rows: list[dict[str, Any]] = field(default_factory=list)
    profiles: list[Array] = field(default_factory=list)
    rims: list[float] = field(default_factory=list)
    verdicts: Verdicts = field(default_factory=Verdicts)
    images: int = 0

    def add(self, row: dict[str, Any]) -> None:
        self.images += 1
        self.verdicts.add(row)
        self.support += support_map(row)
        evidence = evidence_map(row)
        place = profile(evidence)
        kept = {name: row[name] for name in ("index", "path", "probability", "fraction")}
        self.rows.append(kept)
        if place is not None:
            kept["place"] = len(self.profiles)
            self.profiles.append(place)
            self.rims.append(rim_share(evidence))


def summarize(out: str | os.PathLike[str]) -> Summary:
    """Look for what the classes have in common in a folder that ``run`` wrote.

    The place of a class is the median place of its images. An image strays whose distance from it
    (see ``evidence.apart``) is large among those of its class: it may show the object elsewhere,
    or the network may look at something else, such as a watermark.

    Args:
        out: the folder; an unfinished run will do.

    Raises:
        FileFormatError: it holds no rows, or a file is damaged.
    """
    gathered: dict[int, _Gathered] = {}
    images = failed = 0
    for row in Store(out).every(COLUMNS):
        images += 1
        if row["error"] is not None:
            failed += 1
            continue
        if row["target"] not in gathered:
            blank = np.zeros(support_map(row).shape)
            gathered[row["target"]] = _Gathered(row["label"], blank)
        gathered[row["target"]].add(row)
    places = {target: middle(np.array(g.profiles)) for target, g in gathered.items() if g.profiles}
    everywhere = middle(np.array(list(places.values()))) if places else None
    classes = [
        _summary(target, found, places.get(target), everywhere)
        for target, found in gathered.items()
    ]
    return Summary(images, failed, tuple(sorted(classes, key=lambda c: (-c.images, c.target))))


def _summary(
    target: int, found: _Gathered, place: Array | None, everywhere: Array | None
) -> ClassSummary:
    fractions = np.quantile([row["fraction"] for row in found.rows], (0.25, 0.5, 0.75))
    known = place is not None and everywhere is not None
    return ClassSummary(
        target=target,
        label=found.label,
        images=found.images,
        empty=found.images - len(found.profiles),
        support=found.support / found.images,
        fraction=tuple(map(float, fractions)),  # type: ignore[arg-type]  # three of them
        rim=float(np.mean(found.rims)) if found.rims else 0.0,
        elsewhere=float(apart(place, everywhere)) if known else 0.0,  # type: ignore[arg-type]
        strays=() if place is None else _strays(found, place),
        verified=found.verdicts.summary(),
    )


def _strays(found: _Gathered, place: Array) -> tuple[Stray, ...]:
    profiles = np.array(found.profiles)
    if len(profiles) < FEWEST:
        return ()
    distances = apart(profiles, place)
    scores = modified_z(distances)
    x, y = centre(place)
    strays = []
    for row in found.rows:
        number = row.get("place")
        if number is None or scores[number] <= FAR or distances[number] < NEAR:
            continue
        right, down = centre(profiles[number])
        strays.append(
            Stray(
                row["index"],
                row["path"],
                row["probability"],
                row["fraction"],
                float(distances[number]),
                float(scores[number]),
                right - x,
                down - y,
            )
        )
    return tuple(sorted(strays, key=lambda stray: -stray.distance))


def modified_z(numbers: Array) -> Array:
    """0.6745 (x - median) / MAD of each number, with the median absolute deviation MAD: a z-score
    that the outliers themselves do not spoil (Iglewicz and Hoaglin 1993). Infinite for what
    differs where at least half are equal."""
    difference = numbers - np.median(numbers)
    spread = np.median(np.abs(difference))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(0.6745 * difference / spread, nan=0.0, posinf=np.inf, neginf=-np.inf)
