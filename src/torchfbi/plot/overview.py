"""Many explanations on one page: a grid of thumbnails, what needs a look first, to be filtered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from torchfbi.models.labels import plain
from torchfbi.plot import thumbnail
from torchfbi.plot.overlay import raster
from torchfbi.system import page

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation

RULINGS = {"does not hold": 2, "holds in part": 4, "holds": 5}
"""The words of a verdict, and how soon it wants a look, see ``Entry.concern``."""


@dataclass(frozen=True)
class Entry:
    """One image on the page.

    Args:
        name: its path, as it was given.
        picture: its thumbnail as ``thumbnail.tiny`` makes it; empty where there is none.
        said: the most probable class.
        probability: of that class, if known.
        asked: the class explained and its probability, where it is another one.
        truth: the class that its folder names; empty where it names none.
        ruling, sentence: the verdict, where it was tested.
        note: why else it deserves a look.
        error: why there is no explanation.
        link: a page or picture with more, relative to this page.
    """

    name: str
    picture: str = ""
    said: str = ""
    probability: float | None = None
    asked: str = ""
    truth: str = ""
    ruling: str = ""
    sentence: str = ""
    note: str = ""
    error: str = ""
    link: str = ""

    @property
    def wrong(self) -> bool:
        """Whether the network says another class than the folder."""
        return bool(self.truth and not self.error and plain(self.truth) != plain(self.said))

    @property
    def states(self) -> tuple[str, ...]:
        """What the page can be filtered by, in words for programs."""
        known = bool(self.truth) and not self.error
        found = {
            "look": self.concern < RULINGS["holds in part"],
            "wrong": self.wrong,
            "right": known and not self.wrong,
            "weak": self.ruling == "does not hold",
            "failed": bool(self.error),
        }
        return tuple(name for name, is_so in found.items() if is_so)

    @property
    def concern(self) -> int:
        """How soon it wants a look: 0 failed, 1 wrong, 2 does not hold, 3 a stray or the like, 4
        holds in part, 5 nothing."""
        reasons = [5, RULINGS.get(self.ruling, 5)]
        reasons += [0] * bool(self.error) + [1] * self.wrong + [3] * bool(self.note)
        return min(reasons)


def entry(explanation: Explanation, index: int = 0, link: str = "") -> Entry:
    """One sample of an explanation of a photo by a classifier."""
    best, said, probability = explanation.top(1, index)[0]
    verdict = explanation.verdicts[index] if explanation.verdicts else None
    seen = (raster(explanation, index) * 255).round().astype(np.uint8)
    return Entry(
        explanation.photos[index].name,
        thumbnail.tiny(seen, explanation.evidence[index].detach().float().cpu().numpy()),
        said,
        probability,
        ""
        if explanation.target is None or explanation.target[index] == best
        else explanation.title(index),
        ruling=verdict.ruling if verdict else "",
        sentence=verdict.sentence if verdict else "",
        link=link,
    )


def with_truth(entries: Sequence[Entry], classes: Iterable[str]) -> list[Entry]:
    """The entries with the classes that their folders name.

    Only where at least two folders are called as classes: one alone may be so by chance.
    """
    known = {plain(name): name for name in classes}
    folders = [known.get(plain(PurePath(one.name).parent.name), "") for one in entries]
    if len(set(folders) - {""}) < 2:
        return list(entries)
    return [replace(one, truth=truth) for one, truth in zip(entries, folders, strict=True)]


def overview(entries: Sequence[Entry], title: str, about: str) -> str:
    """The page as HTML, whole in itself.

    Args:
        entries: in any order.
        title: its heading.
        about: a sentence below it.
    """
    ordered = sorted(entries, key=lambda one: (one.concern, one.probability or 0, one.name))
    classes = Counter(one.said for one in ordered if not one.error)
    return page.render(
        "torchfbi.plot",
        "overview.html",
        title=title,
        about=about,
        entries=ordered,
        classes=sorted(classes.items(), key=lambda pair: (-pair[1], pair[0])),
        counts=Counter(state for one in ordered for state in one.states),
    )
