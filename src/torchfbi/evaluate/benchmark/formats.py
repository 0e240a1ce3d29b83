"""Annotations in files: COCO JSON, Pascal VOC XML, and pictures of masks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np

from torchfbi.errors import FileFormatError, SettingsError
from torchfbi.evaluate.benchmark.outlines import (
    Mask,
    Outlined,
    Reader,
    box,
    coordinates,
    not_empty,
    polygon,
    run_lengths,
    same_size,
)
from torchfbi.models.images import Photo
from torchfbi.system.reading import whole

MOST_BYTES = 2**30
"""Of one file of annotations; COCO's own for 118287 pictures has less than half of that."""

CONVENTIONAL = ("annotations.json", "annotations", "Annotations", "masks")
"""Where annotations are looked for in a folder of pictures, before the folder itself."""


def find(folder: Path) -> Reader:
    """The annotations that a folder of pictures brings along, in one of ``CONVENTIONAL`` or as
    XML files beside the pictures.

    Raises:
        FileFormatError: as for ``reader``.
    """
    for name in CONVENTIONAL:
        if (folder / name).exists():
            return reader(folder / name)
    return by_stem(folder, (".xml",))


def reader(path: Path) -> Reader:
    """The annotations in a COCO file, or in a folder of XML files and masks.

    Raises:
        SettingsError: there is nothing at that path.
        FileFormatError: the COCO file cannot be read.
    """
    if path.is_dir():
        return by_stem(path, (".xml", ".png"))
    if not path.is_file():
        raise SettingsError(f"annotations={path}: there is no such file or folder.")
    return coco(path)


def by_stem(folder: Path, suffixes: tuple[str, ...]) -> Reader:
    """Annotations in files called as the picture is: VOC (.xml), or a mask (.png)."""

    def read(picture: Path, shape: tuple[int, int]) -> list[Outlined]:
        for suffix in suffixes:
            path = folder / f"{picture.stem}{suffix}"
            if path.is_file() and path.resolve() != picture.resolve():
                return voc(path, shape) if suffix == ".xml" else [mask(path, shape)]
        return []

    return read


def mask(path: Path, shape: tuple[int, int]) -> Outlined:
    """The object of a mask: where the picture is not black.

    Raises:
        ImageError: it cannot be read.
        FileFormatError: it is of another size than the photo, all black, or nowhere black.
    """
    photo = Photo.read(path)
    same_size(photo.shape[1], photo.shape[0], shape)
    inside: Mask = np.any(photo.pixels, axis=-1)
    if inside.all():
        raise FileFormatError(f"{path.name} is nowhere black: what is outside must be 0, opaque.")
    return Outlined(None, not_empty(inside, path.name))


def voc(path: Path, shape: tuple[int, int]) -> list[Outlined]:
    """The objects of a Pascal VOC file: boxes, of which both corners are pixels, from 1.

    (Everingham et al. 2010, "The Pascal Visual Object Classes Challenge"; development kit,
    section 4.) Nothing that the file declares or refers to is read.

    Raises:
        FileFormatError: it is no such file, has a document type, or does not fit the photo.
    """
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        root = ElementTree.fromstring(whole(path, MOST_BYTES), parser)
    except FileFormatError:
        raise
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FileFormatError(f"{path.name} is no XML that can be read: {error}.") from None
    if root.tag != "annotation":
        raise FileFormatError(f"{path.name} is no Pascal VOC file: it has no <annotation>.")
    width, height = (root.findtext(f"size/{side}", "0").strip() for side in ("width", "height"))
    if (width, height) != ("0", "0"):  # some tools write zeros
        same_size(_number(width), _number(height), shape)
    objects = []
    for found in root.iterfind("object"):
        corners = ("xmin", "ymin", "xmax", "ymax")
        left, top, right, bottom = (_number(found.findtext(f"bndbox/{c}", "")) for c in corners)
        inside = box(left - 1, top - 1, right, bottom, shape)
        objects.append(Outlined(found.findtext("name"), inside))
    return objects


class _NoDoctype(ElementTree.TreeBuilder):
    """No document type is a part of the format, but it could define entities that explode."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise FileFormatError("it declares a document type, which is refused: remove <!DOCTYPE>.")


def _number(text: str) -> float:
    try:
        return coordinates([float(text)])[0]
    except ValueError:
        raise FileFormatError(f"{text[:40]!r} is no coordinate.") from None


def coco(path: Path) -> Reader:
    """The objects of a COCO file: polygons, uncompressed run lengths, or else boxes.

    Pictures are found by the last part of their ``file_name``; no path in the file is opened.

    Raises:
        FileFormatError: it is no JSON of that form. Objects that cannot be read are an error only
            for the picture that they belong to.
    """
    try:
        content = json.loads(whole(path, MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: it is no JSON that can be read: {error}.") from None
    images: dict[str, dict[str, Any]] = {}
    for image in _entries(path, content, "images", id=(int, str), file_name=(str,)):
        name = PurePosixPath(image["file_name"].replace("\\", "/")).name
        if name in images:
            raise FileFormatError(f"{path}: two images are called {name}.")
        images[name] = image
    categories = {
        category["id"]: category["name"]
        for category in _entries(path, content, "categories", id=(int, str), name=(str,))
    }
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for entry in _entries(path, content, "annotations", image_id=(int, str)):
        annotations[entry["image_id"]].append(entry)

    def read(picture: Path, shape: tuple[int, int]) -> list[Outlined]:
        image = images.get(picture.name)
        if image is None:
            return []
        if "width" in image or "height" in image:
            same_size(image.get("width"), image.get("height"), shape)
        return [
            Outlined(_category(entry, categories), _outline(entry, shape))
            for entry in annotations[image["id"]]
        ]

    return read


def _entries(path: Path, content: Any, key: str, **types: tuple[type, ...]) -> Iterator[Any]:
    """The objects of a list, each with fields of these types."""
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise FileFormatError(f"{path}: it has no list {key!r}, so it is no COCO file.")
    for number, entry in enumerate(entries):
        for field, allowed in types.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(field), allowed):
                raise FileFormatError(f"{path}: {key}[{number}] has no proper {field!r}.")
        yield entry


def _category(entry: dict[str, Any], categories: dict[Any, str]) -> str | None:
    number = entry.get("category_id")
    return categories.get(number) if isinstance(number, int | str) else None


def _outline(entry: dict[str, Any], shape: tuple[int, int]) -> Mask:
    outline = entry.get("segmentation")
    if isinstance(outline, dict):
        return run_lengths(outline.get("counts"), outline.get("size"), shape)
    if isinstance(outline, list) and outline:
        inside = polygon(outline[0], shape)
        for points in outline[1:]:
            inside = inside | polygon(points, shape)
        return inside
    numbers = coordinates(entry.get("bbox"))
    if len(numbers) != 4:
        raise FileFormatError(f"a box has {len(numbers)} numbers, not x, y, width, height.")
    left, top, width, height = numbers
    return box(left, top, left + width, top + height, shape)
