"""What verdicts say of a class: how large a part suffices, and whether it looks like a shortcut."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from torchfbi.batch.evidence import apart, centre, middle, profile, rim_share
from torchfbi.errors import FileFormatError
from torchfbi.models.images import Array

FEWEST = 5
"""Of fewer images nobody can say what a class hangs on, nor which one strays."""

SPOT = 0.02
"""A class hangs on a small spot where half of its sufficient parts are smaller than this share."""

AT_RIM = 0.8
"""A class hangs on the border where this share of its sufficient parts lies in the outer tenth of
the picture; evenly spread it would be 0.36."""

SAME = 0.06
"""A class hangs on one place where half of its sufficient parts lie closer than this to their
common place, in sides of the picture."""


@dataclass(frozen=True)
class Verified:
    """What the verdicts of a class have in common.

    Args:
        images: how many were verified.
        holds, in_part, not_at_all: how many of them hold, hold in part, or do not.
        share: quartiles of the share of the picture that suffices; None where no part was found.
        rim: the mean share of the sufficient parts that lies at the picture's rim.
        spread: the median distance of the sufficient parts from their common place, in sides.
        place: of that place, right and down from the upper left corner, in sides.
        signs: why the class may be recognised by a shortcut; empty where nothing says so.
        photos: the images whose sufficient part lies nearest to the common place, if so.
    """

    images: int
    holds: int
    in_part: int
    not_at_all: int
    share: tuple[float, float, float] | None
    rim: float
    spread: float
    place: tuple[float, float] | None
    signs: tuple[str, ...]
    photos: tuple[str, ...]


class Verdicts:
    """The verdicts of a class while its rows go by."""

    def __init__(self) -> None:
        self._rulings: list[str] = []
        self._paths: list[str] = []
        self._shares: list[float] = []
        self._rims: list[float] = []
        self._places: list[Array] = []

    def add(self, row: dict[str, Any]) -> None:
        """A row with or without a verdict.

        Raises:
            FileFormatError: its verdict is damaged.
        """
        if row.get("verdict") is None:
            return
        try:
            self._rulings.append(str(json.loads(row["verdict"])["ruling"]))
            picture = row.get("sufficient")
            mask = None if picture is None else _mask(picture["bytes"])
        except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
            raise FileFormatError(f"row {row['index']}: its verdict is damaged: {error}") from error
        place = None if mask is None else profile(mask)
        if mask is not None and place is not None and mask.mean() < 1:
            self._paths.append(row["path"])
            self._shares.append(float(mask.mean()))
            self._rims.append(rim_share(mask))
            self._places.append(place)

    def summary(self) -> Verified | None:
        """What they have in common; None where nothing was verified."""
        if not self._rulings:
            return None
        count = {name: self._rulings.count(name) for name in set(self._rulings)}
        counted = {
            "images": len(self._rulings),
            "holds": count.get("holds", 0),
            "in_part": count.get("holds in part", 0),
            "not_at_all": count.get("does not hold", 0),
        }
        if not self._shares:
            return Verified(**counted, share=None, rim=0, spread=0, place=None, signs=(), photos=())
        places = np.array(self._places)
        common = middle(places)
        distances = apart(places, common)
        low, half, high = np.quantile(self._shares, (0.25, 0.5, 0.75)).tolist()
        rim, spread = float(np.mean(self._rims)), float(np.median(distances))
        signs = _signs(len(self._shares), half, rim, spread)
        nearest = np.argsort(distances, kind="stable")
        return Verified(
            **counted,
            share=(low, half, high),
            rim=rim,
            spread=spread,
            place=centre(common),
            signs=signs,
            photos=tuple(self._paths[i] for i in nearest) if signs else (),
        )


def _signs(images: int, share: float, rim: float, spread: float) -> tuple[str, ...]:
    if images < FEWEST:
        return ()
    found = [
        (share <= SPOT, f"one small spot suffices ({share:.1%} of the picture)"),
        (rim >= AT_RIM, f"what suffices lies at the border ({rim:.0%} of it)"),
        (spread <= SAME, f"what suffices lies at the same place ({spread:.2f} sides apart)"),
    ]
    return tuple(text for holds, text in found if holds)


def _mask(content: bytes) -> Array:
    """A mask as the picture that a row holds, float64 (H, W)."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("1")).astype(np.float64)
