"""A user's own pictures as a suite, with the boxes or masks that come with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from torchfbi.errors import FileFormatError, ImageError
from torchfbi.evaluate.benchmark import formats
from torchfbi.evaluate.benchmark.outlines import Mask, Outlined, Reader
from torchfbi.evaluate.benchmark.predict import check, probabilities
from torchfbi.evaluate.benchmark.scene import Scene, Suite
from torchfbi.models import Labels, Model
from torchfbi.models.images import Photo, pictures
from torchfbi.models.labels import plain

NumberOf = Callable[[str], int | None]
"""From a category to the class that it names."""


def folder(
    path: str | os.PathLike[str],
    model: Model,
    annotations: str | os.PathLike[str] | None = None,
    count: int | None = None,
) -> Suite:
    """The pictures of a folder, as this network sees them.

    A picture is a scene for every annotated category that is exactly the name, a synonym or the
    number of one of the network's classes; its mask holds all objects of that category. Where no
    category is, the network's top class is probed, and the mask holds all objects annotated.
    Without annotations there is no mask. Masks are resized and cropped exactly as the photo is;
    a pixel of the network's input belongs to an object that covers at least half of it.

    Args:
        path: the folder; pictures in folders below it are not read.
        model: a classifier of photos.
        annotations: a COCO JSON file; or a folder that has, for ``photo.jpg``, the Pascal VOC
            file ``photo.xml`` or the mask ``photo.png`` (not black: object). By default
            ``annotations.json``, ``annotations/`` or ``masks/`` in the folder, or XML files
            beside the pictures.
        count: take only the first so many pictures, by name.

    Returns:
        the suite; pictures that cannot be read, or whose annotations cannot, or whose object the
        network does not see, are listed in its ``refused``.

    Raises:
        ImageError: no such folder, or none of its files is a picture that can be used.
        FileFormatError: the COCO file is none.
        SettingsError: a count below 1, or no such annotations.
        InputError, TrainingModeError: as for ``cutouts``.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ImageError(f"{root} is no folder (seen from {Path.cwd()}).")
    check(model, 1 if count is None else count, 0)
    read = formats.find(root) if annotations is None else formats.reader(Path(annotations))
    number_of = cache(partial(class_of, model.labels))
    scenes: list[Scene] = []
    refused: list[str] = []
    for picture in islice(pictures(root), count):
        try:
            scenes += _scenes(model, picture, read, number_of, refused)
        except (ImageError, FileFormatError) as error:
            refused.append(f"{picture.name}: {error}")
    if not scenes:
        first = f" The first of {len(refused)} is refused: {refused[0]}" if refused else ""
        raise ImageError(f"{root} holds no picture that can be used.{first}")
    masked = sum(scene.mask is not None for scene in scenes)
    description = f"Pictures from {root.name}, {masked} of {len(scenes)} with their objects' masks."
    return Suite(root.name, description, model, tuple(scenes), tuple(refused))


def _scenes(
    model: Model, path: Path, read: Reader, number_of: NumberOf, refused: list[str]
) -> list[Scene]:
    photo = Photo.read(path)
    objects = read(path, photo.shape)
    x = model.placed(model.preprocess(photo)[0])
    pixels = model.preprocess.denormalise(x)
    named = _by_class(objects, number_of)
    if not named:
        top = int(probabilities(model, [x]).argmax())
        if not objects:
            return [Scene(path.name, pixels, x, top)]
        named = {top: _union(objects)}
    scenes = []
    for target, mask in named.items():
        name, seen = f"{path.name}: {model.labels[target]}", _seen(model, mask)
        if seen.any():
            scenes.append(Scene(name, pixels, x, target, seen))
        else:
            refused.append(f"{name}: it is too small, or outside of what the network sees.")
    return scenes


def _by_class(objects: list[Outlined], number_of: NumberOf) -> dict[int, Mask]:
    found: dict[int, list[Outlined]] = {}
    for outlined in objects:
        number = None if outlined.category is None else number_of(outlined.category)
        if number is not None:
            found.setdefault(number, []).append(outlined)
    return {number: _union(outlined) for number, outlined in found.items()}


def _union(objects: list[Outlined]) -> Mask:
    return np.logical_or.reduce([outlined.mask for outlined in objects])


def _seen(model: Model, mask: Mask) -> Tensor:
    """The mask in the pixels of the network's input, prepared as a photo is."""
    grey = replace(model.preprocess, channels="L", mean=(0,), std=(1,))
    cover, _ = grey(Photo(np.repeat(mask[..., None] * np.uint8(255), 3, -1)))
    return cover[0] > 0.5


def class_of(labels: Labels, category: str) -> int | None:
    """The only class that has exactly this name or number, else exactly this synonym; or None.

    Upper and lower case, hyphens and underscores do not matter. Unlike ``Labels.find`` it takes
    no parts of names: an apple is no custard apple.
    """
    wanted = plain(category)
    named = [i for i, name in enumerate(labels) if plain(name) == wanted]
    if not named and wanted.isdecimal() and len(wanted) < 10 and int(wanted) < len(labels):
        named = [int(wanted)]
    if not named:
        named = [i for i, words in enumerate(labels.synonyms) if wanted in map(plain, words)]
    return named[0] if len(named) == 1 else None
