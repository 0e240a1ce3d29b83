"""What the tests of data-set runs share: a tiny network, a folder of pictures, hostile sources."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from torchfbi import Labels, Model, Preprocess


class Tiny(nn.Module):
    """Ten classes from 16 x 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(nn.functional.max_pool2d(x, 2)))
        return self.head(x.mean((2, 3)))


def tiny(seed: int = 0) -> Model:
    """A network of random weights."""
    torch.manual_seed(seed)
    preprocess = Preprocess(resize=16, crop=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Model(Tiny().eval(), preprocess, Labels([f"kind {i}" for i in range(10)]), "tiny")


def pictures(folder: Path, count: int = 10) -> list[Path]:
    """Small pictures of random colours, ``folder/0/000.png`` and so on; the third is damaged."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / str(number % 2) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 30)).save(path)
        paths.append(path)
    if count > 2:
        paths[2].write_bytes(paths[2].read_bytes()[:60])
    return paths


class Deadly:
    """A source whose image number 3 kills the process that reads it, as a faulty decoder would."""

    kind = "files"

    def __init__(self, paths: list[Path], reader: int) -> None:
        self.names, self.files = [str(path) for path in paths], paths
        self.reader = reader

    def read(self, index: int) -> bytes:
        if index == 3 and os.getpid() != self.reader:
            os._exit(9)
        return Path(self.names[index]).read_bytes()
