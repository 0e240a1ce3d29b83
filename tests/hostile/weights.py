"""State dicts."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import torch
from torch import nn

from hostile.archives import Payload
from hostile.case import archive, kind, sparse, zeros
from torchfbi import Labels, Model, Preprocess
from torchfbi.errors import ModelError
from torchfbi.models.weights import with_weights


def fill(path: Path) -> None:
    """Put the weights into a network of two numbers."""
    plain = Preprocess(resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1))
    with_weights(Model(nn.Linear(1, 1), plain, Labels(["a"]), "tiny"), path)


state = kind("weights", fill, ModelError)


def saved(folder: Path, content: object, **options: bool) -> Path:
    torch.save(content, folder / "a.pt", **options)
    return folder / "a.pt"


def tensors(folder: Path, header: object, body: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    (folder / "a.safetensors").write_bytes(size.to_bytes(8, "little") + text + body)
    return folder / "a.safetensors"


@state("could run code")
def pickle_in_an_archive(folder: Path) -> Path:
    return saved(folder, {"weight": Payload()})


@state("could run code")
def pickle_of_old(folder: Path) -> Path:
    return saved(folder, {"weight": Payload()}, _use_new_zipfile_serialization=False)


@state("could run code|damaged")
def pickle_alone(folder: Path) -> Path:
    (folder / "a.pt").write_bytes(pickle.dumps(Payload(), protocol=0))
    return folder / "a.pt"


@state("could run code|damaged")
def network_with_its_code(folder: Path) -> Path:
    torch.save(nn.Linear(1, 1), folder / "a.pt")
    return folder / "a.pt"


@state("compressed")
def zip_bomb(folder: Path) -> Path:
    stream = zeros(2**15)
    (folder / "a.pt").write_bytes(archive(("a/data.pkl", stream, 2**35)))
    return folder / "a.pt"


@state("does not fit|no state dict")
def tensor_of_a_terabyte_that_is_one_number(folder: Path) -> Path:
    return saved(folder, {"weight": torch.ones(1).expand(10**6, 10**6), "bias": torch.ones(1)})


@state("no state dict")
def list_that_holds_itself(folder: Path) -> Path:
    endless: list[object] = []
    endless.append(endless)
    return saved(folder, endless)


@state("no state dict|does not fit")
def names_that_are_numbers(folder: Path) -> Path:
    return saved(folder, {7: torch.ones(1)})


@state("damaged|could run code|no state dict")
def pickle_nested_a_hundred_thousand_times(folder: Path) -> Path:
    content = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", content)
        file.writestr("a/version", "3")
    (folder / "a.pt").write_bytes(buffer.getvalue())
    return folder / "a.pt"


@state("damaged")
def header_of_an_exabyte(folder: Path) -> Path:
    return tensors(folder, b"{}", length=2**60)


@state("damaged")
def header_nested_a_hundred_thousand_times(folder: Path) -> Path:
    return tensors(folder, b"[" * 100_000)


@state("damaged")
def tensor_that_claims_a_terabyte(folder: Path) -> Path:
    entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    return tensors(folder, {"weight": entry}, bytes(16))


@state("damaged")
def tensors_that_overlap(folder: Path) -> Path:
    entry = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
    return tensors(folder, {"weight": entry, "bias": entry}, bytes(4))


@state("damaged")
def tensor_of_negative_place(folder: Path) -> Path:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}
    return tensors(folder, {"weight": entry}, bytes(4))


@state("damaged")
def terabyte_of_zeros(folder: Path) -> Path:
    return sparse(folder / "a.pt", 2**40)


@state("no such file")
def pipe_that_nobody_writes_to(folder: Path) -> Path:
    os.mkfifo(folder / "a.pt")
    return folder / "a.pt"
