"""Saved explanations (.npz)."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hostile.case import TRACE, archive, kind, sparse, zeros
from torchfbi import Explanation, Settings
from torchfbi.errors import FileFormatError
from torchfbi.explanation.explanation import LayerSupport


def use(path: Path) -> None:
    """Load it, and look at all of it."""
    explanation = Explanation.load(path)
    repr(explanation)
    json.dumps(explanation.manifest(), allow_nan=False)
    explanation.to_heatmap()
    if explanation.photos:
        explanation.on_photo()


saved = kind("explanation", use, FileFormatError)


class Payload:
    """Unpickled, it leaves a folder behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (TRACE,)


def honest(folder: Path) -> Path:
    """An explanation of two samples."""
    support = torch.zeros(2, 8, 8, dtype=torch.bool)
    explanation = Explanation(
        values=torch.zeros(2, 3, 8, 8),
        logits=torch.zeros(2, 5),
        target=torch.tensor([0, 4]),
        layers=(LayerSupport("image", support, torch.zeros(2)),),
        settings=Settings.contrast(),
        labels=("a", "b", "c", "d", "e"),
    )
    return explanation.save(folder / "a.npz")


def changed(folder: Path, **arrays: Any) -> Path:
    """An explanation with other arrays; None leaves one out."""
    path = honest(folder)
    with np.load(path) as loaded:
        content = {**loaded, **arrays}
    np.savez(path, **{name: array for name, array in content.items() if array is not None})
    return path


def told(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """An explanation whose manifest was changed."""
    manifest = json.loads(honest(folder).with_suffix(".json").read_text())
    change(manifest)
    return changed(folder, manifest=np.array(json.dumps(manifest)))


def with_member(folder: Path, name: str, content: bytes) -> Path:
    path = honest(folder)
    with zipfile.ZipFile(path) as old:
        members = {member: old.read(member) for member in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member, data in {**members, name: content}.items():
            new.writestr(member, data)
    return path


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x02\0" + len(text).to_bytes(4, "little") + text + content


@saved("unpacks to")
def zip_bomb_of_32_gigabytes(folder: Path) -> Path:
    claim = npy("{'descr': '<U8589934592', 'fortran_order': False, 'shape': ()}\n")
    stream = zeros(2**15, claim)
    (folder / "a.npz").write_bytes(archive(("manifest.npy", stream, len(claim) + 2**35)))
    return folder / "a.npz"


@saved("unpacks to")
def many_members_of_one_gigabyte(folder: Path) -> Path:
    stream = zeros(2**10)
    members = [(f"photo_{i}.npy", stream, 2**30) for i in range(20)]
    (folder / "a.npz").write_bytes(archive(*members))
    return folder / "a.npz"


@saved("not an explanation")
def zip_bomb_that_claims_to_be_small(folder: Path) -> Path:
    claim = npy("{'descr': '<U2147483648', 'fortran_order': False, 'shape': ()}\n")
    (folder / "a.npz").write_bytes(archive(("manifest.npy", zeros(2**13, claim), 100)))
    return folder / "a.npz"


@saved("not an explanation")
def array_that_claims_a_petabyte(folder: Path) -> Path:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 1000000, 100000000)}\n"
    return with_member(folder, "values.npy", npy(header))


@saved("not an explanation")
def array_that_claims_three_gigabytes(folder: Path) -> Path:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 12500, 10000)}\n"
    return with_member(folder, "values.npy", npy(header))


@saved("not an explanation")
def array_header_that_calls(folder: Path) -> Path:
    return with_member(folder, "values.npy", npy(f"__import__('os').mkdir('{TRACE}')\n"))


@saved("not an explanation")
def array_header_of_a_gigabyte(folder: Path) -> Path:
    return with_member(folder, "values.npy", b"\x93NUMPY\x02\0" + b"\xff" * 4 + b"{" * 2**20)


@saved("not an explanation")
def pickled_object(folder: Path) -> Path:
    return changed(folder, values=np.array([Payload()], dtype=object))


@saved("not an explanation")
def pickle_alone(folder: Path) -> Path:
    np.save(folder / "a.npy", np.array([Payload()], dtype=object))
    return folder / "a.npy"


@saved("not an explanation")
def array_alone(folder: Path) -> Path:
    np.save(folder / "a.npy", np.zeros(3))
    return folder / "a.npy"


@saved(None)
def member_that_climbs_out(folder: Path) -> Path:
    return with_member(folder, f"../../{TRACE}", b"x")


@saved("not an explanation")
def archive_in_an_archive(folder: Path) -> Path:
    inner = honest(folder).read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as outer:
        outer.writestr("a.npz", inner)
    (folder / "b.npz").write_bytes(buffer.getvalue())
    return folder / "b.npz"


@saved("not an explanation")
def cut_short(folder: Path) -> Path:
    path = honest(folder)
    path.write_bytes(path.read_bytes()[:-200])
    return path


@saved("not an explanation")
def terabyte_of_zeros(folder: Path) -> Path:
    return sparse(folder / "a.npz", 2**40)


@saved("not an explanation|no file")
def pipe_that_nobody_writes_to(folder: Path) -> Path:
    os.mkfifo(folder / "a.npz")
    return folder / "a.npz"


@saved("not an explanation|no file")
def link_to_itself(folder: Path) -> Path:
    (folder / "a.npz").symlink_to("a.npz")
    return folder / "a.npz"


@saved("not an explanation")
def manifest_nested_a_hundred_thousand_times(folder: Path) -> Path:
    return changed(folder, manifest=np.array("[" * 100_000))


for name, arrays in {
    "values of no dimension": {"values": np.float32(1)},
    "values of text": {"values": np.full((2, 3, 8, 8), "a")},
    "values of whole numbers": {"values": np.zeros((2, 3, 8, 8), int)},
    "values that are NaN": {"values": np.full((2, 3, 8, 8), np.nan, np.float32)},
    "no values": {"values": None},
    "logits of another batch": {"logits": np.zeros((7, 5), np.float32)},
    "logits that are infinite": {"logits": np.full((2, 5), np.inf, np.float32)},
    "target beyond all classes": {"target": np.array([0, 10**9])},
    "target of fractions": {"target": np.array([0.5, 0.5])},
    "target of another batch": {"target": np.array([0])},
    "layer of numbers": {"layer_0": np.zeros((2, 8, 8))},
    "layer of another batch": {"layer_0": np.zeros((0, 8, 8), bool)},
    "layer that is missing": {"layer_0": None},
    "photo that is none": {"photo_0": np.zeros((2, 2))},
}.items():

    def make(folder: Path, arrays: dict[str, Any] = arrays) -> Path:
        return changed(folder, **arrays)

    make.__name__ = name
    saved("not an explanation")(make)

for name, change in {
    "manifest that is a list": lambda m: m.clear(),
    "another schema": lambda m: m.update(schema=99),
    "unknown setting": lambda m: m["settings"].update(shell="rm"),
    "setting of another type": lambda m: m["settings"].update(k=[1]),
    "fewer samples": lambda m: m["samples"].pop(),
    "samples that are numbers": lambda m: m.update(samples=[1, 2]),
    "labels that are numbers": lambda m: m.update(labels=[1, 2, 3, 4, 5]),
    "labels that are a text": lambda m: m.update(labels="abcde"),
    "model that is a list": lambda m: m.update(model=[]),
    "versions that are a list": lambda m: m.update(versions=[]),
    "layers that are numbers": lambda m: m.update(layers=[1]),
    "shape of another size": lambda m: m.update(shape=[2, 3, 9, 9]),
}.items():

    def make_told(folder: Path, change: Callable[[Any], object] = change) -> Path:
        return told(folder, change)

    make_told.__name__ = name
    saved("not an explanation")(make_told)
