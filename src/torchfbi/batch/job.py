"""What a run does: which images, which network, how. And what its results depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from torchfbi.batch.sources import Source, printable, stamp
from torchfbi.capture.capture import capture
from torchfbi.capture.fingerprint import graph_hash, tensor_bytes, weights_hash
from torchfbi.method.settings import Settings
from torchfbi.models import Model
from torchfbi.models.images import Photo
from torchfbi.models.preprocess import Preprocess
from torchfbi.system.versions import versions

SCHEMA = 1


class Slice(NamedTuple):
    """Images that are explained together.

    Args:
        shard: the shard that they belong to.
        start, stop: their numbers in the input, [start, stop).
    """

    shard: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that the rows depend on. It can be sent to another process or machine.

    Args:
        source: the images.
        model: the network with its preprocessing and labels.
        settings: of the walk.
        target: the class to explain, as ``--target`` takes it; None for the top class.
        shard: how many images a shard holds.
        batch: how many images go through the network together. Both are cut from the input in
            its order, so that a batch is the same on every engine and after every restart.
        threads: of PyTorch, which are a part of the last bits as well.
        device: where the network runs, such as ``"cpu"`` or ``"cuda"``.
        verify: test on each image whether its explanation holds: some 60 forward passes more.
    """

    source: Source
    model: Model
    settings: Settings
    target: str | None = None
    shard: int = 128
    batch: int = 8
    threads: int = 1
    device: str = "cpu"
    verify: bool = False
    versions: dict[str, str] = field(default_factory=versions)

    def __len__(self) -> int:
        return len(self.source.names)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-len(self) // self.shard)

    def slices(self, shards: Iterable[int]) -> Iterator[Slice]:
        """The batches of some shards; the last one of a shard may be smaller."""
        for shard in shards:
            end = min((shard + 1) * self.shard, len(self))
            for start in range(shard * self.shard, end, self.batch):
                yield Slice(shard, start, min(start + self.batch, end))

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the rows depend on, as plain JSON values."""
        preprocess = asdict(self.model.preprocess)
        return {
            "schema": SCHEMA,
            "input": {
                "kind": self.source.kind,
                "images": len(self),
                "names": _hash(map(printable, self.source.names)),
            },
            "files": _hash(map(stamp, self.source.files)),
            "shard": self.shard,
            "model": self.model.name,
            "weights": weights_hash(self.model.module),
            "graph": graph_hash(capture(self.model.module, self.model.blank(), anew=True)),
            "preprocess": json.loads(json.dumps(preprocess)),  # tuples become lists
            "assumed": list(self.model.assumed),
            "prepared": _prepared(self.model.preprocess),
            "labels": _hash(self.model.labels),
            "classes": list(self.model.labels),
            "settings": self.settings.to_dict(),
            "target": self.target,
            "versions": self.versions,
            "batch": self.batch,
            "threads": self.threads,
            "device": self.device,
            "verify": self.verify,
        }

    @cached_property
    def settings_hash(self) -> str:
        """16 hex digits that change with the network, its preprocessing, the target and every
        setting of the walk."""
        names = ("model", "weights", "graph", "preprocess", "target", "settings")
        chosen = {name: self.manifest[name] for name in names}
        return _hash([json.dumps(chosen, sort_keys=True)])[:16]


def _prepared(preprocess: Preprocess) -> str:
    """What it makes of a picture: its numbers say nothing of its code, nor of Pillow's."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    return hashlib.sha256(tensor_bytes(preprocess(Photo(pixels))[0])).hexdigest()


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
