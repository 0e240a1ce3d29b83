"""Texts: class names, settings, annotations."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hostile.case import kind, sparse
from torchfbi import Labels, Settings
from torchfbi.errors import FileFormatError, ModelError, SettingsError
from torchfbi.evaluate.benchmark import formats

labels = kind("labels", lambda path: Labels.read(path, 3), ModelError)
settings = kind("settings", Settings.from_dict, SettingsError)
coco = kind("COCO", lambda path: formats.coco(path)(path, (8, 8)), FileFormatError)
voc = kind("VOC", lambda path: formats.voc(path, (8, 8)), FileFormatError)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


DEEP = "[" * 100_000 + "]" * 100_000


@labels("class names")
def terabyte_of_zeros(folder: Path) -> Path:
    return sparse(folder / "a.txt", 2**40)


@labels("class names")
def nested_a_hundred_thousand_times(folder: Path) -> Path:
    return written(folder / "a.json", DEEP)


@labels("class names")
def number_of_a_million_digits(folder: Path) -> Path:
    return written(folder / "a.json", f"[{'9' * 1_000_000}]")


@labels("class names")
def pipe_that_nobody_writes_to(folder: Path) -> Path:
    os.mkfifo(folder / "a.txt")
    return folder / "a.txt"


@labels("class names")
def endless_device(folder: Path) -> Path:
    (folder / "a.txt").symlink_to("/dev/zero")
    return folder / "a.txt"


@labels("class names")
def ten_million_lines(folder: Path) -> Path:
    return written(folder / "a.txt", "a\n" * 10_000_000)


@labels("class names")
def empty_list_in_the_list(folder: Path) -> Path:
    return written(folder / "a.json", '[[], "a", "b"]')


for name, plain in {
    "NaN": {"k": float("nan")},
    "infinity": {"gamma": float("inf")},
    "integer beyond all floats": {"gamma": 10**400},
    "list for a choice": {"seed": ["paper"]},
    "dictionary for a choice": {"pooling": {}},
    "text for a number": {"k": "0.5"},
    "truth for a number": {"k": True},
    "field of Python": {"__class__": "str"},
    "number for a field": {7: 1},
    "no dictionary": ["preset"],
    "dictionary for a number": {"tau": {"kind": "mass", "value": 0.5}},
    "a million digits": {"tau": "9" * 1_000_000},
    "preset that is no text": {"preset": [[]]},
}.items():

    def make(folder: Path, plain: Any = plain) -> Any:
        return plain

    make.__name__ = name
    settings(".")(make)


@coco("no JSON")
def list_nested_a_hundred_thousand_times(folder: Path) -> Path:
    return written(folder / "a.json", DEEP)


@coco("no JSON|too large")
def terabyte_of_nothing(folder: Path) -> Path:
    return sparse(folder / "a.json", 2**40)


def annotated(folder: Path, **entry: Any) -> Path:
    content = {"images": [{"id": 1, "file_name": "../../a.json"}], "categories": [],
               "annotations": [{"image_id": 1, **entry}]}  # fmt: skip
    return written(folder / "a.json", json.dumps(content))


@coco("do not add up")
def run_lengths_of_exabytes(folder: Path) -> Path:
    return annotated(folder, segmentation={"counts": [0, 2**62], "size": [8, 8]})


@coco("no coordinate")
def polygon_beyond_the_horizon(folder: Path) -> Path:
    return annotated(folder, segmentation=[[0, 0, 1e308, 1e308, 10**400, 7]])


@coco(".")
def box_of_nan(folder: Path) -> Path:
    return annotated(folder, bbox=[float("nan"), 0, 1, 1])


@voc("document type")
def entities_that_explode(folder: Path) -> Path:
    lines = [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 20)]
    entities = '<!ENTITY a0 "ha">' + "".join(lines)
    return written(folder / "a.xml", f"<!DOCTYPE x [{entities}]><annotation>&a19;</annotation>")


@voc("document type")
def entity_that_is_a_file(folder: Path) -> Path:
    entity = '<!ENTITY a SYSTEM "file:///etc/passwd">'
    return written(folder / "a.xml", f"<!DOCTYPE x [{entity}]><annotation>&a;</annotation>")


@voc(None)
def element_nested_a_hundred_thousand_times(folder: Path) -> Path:
    inner = "<a>" * 100_000 + "</a>" * 100_000
    return written(folder / "a.xml", f"<annotation>{inner}</annotation>")


@voc("no XML|too large")
def element_of_a_terabyte(folder: Path) -> Path:
    return sparse(folder / "a.xml", 2**40, b"<annotation>")
