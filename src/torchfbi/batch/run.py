"""A run: what is missing in the folder is explained, shard by shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchfbi.batch import cluster, local
from torchfbi.batch.inputs import find
from torchfbi.batch.job import Job, Slice
from torchfbi.batch.memory import batch_size
from torchfbi.batch.rows import Row
from torchfbi.batch.store import Store
from torchfbi.capture.capture import capture
from torchfbi.errors import SettingsError
from torchfbi.explanation.several import holding
from torchfbi.method.settings import Settings
from torchfbi.models import Model, load

Engine = Callable[[Job, Iterable[Slice]], Iterator[tuple[Slice, list[Row]]]]

ENGINES: dict[str, Callable[..., Iterator[tuple[Slice, list[Row]]]]] = {
    "local": local.explain,
    "ray": cluster.explain,
}


class Progress(NamedTuple):
    """How far a run is, in images.

    Args:
        done: those in the folder, and those explained since.
        total: all.
        failed: those that became errors in this run.
    """

    done: int
    total: int
    failed: int


class Done(NamedTuple):
    """What a folder holds.

    Args:
        images: how many rows.
        failures: name and error of every image that could not be explained.
        explained: how many rows this run made.
    """

    images: int
    failures: list[tuple[str, str]]
    explained: int


def run(
    model: str | Model,
    images: str | os.PathLike[str],
    out: str | os.PathLike[str],
    target: str | None = None,
    settings: Settings | None = None,
    *,
    engine: str = "local",
    batch: int | None = None,
    shard: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    verify: bool = False,
    mix: bool = False,
    inputs: dict[str, Tensor] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Done:
    """Explain every image of a data set.

    >>> run("efficientnet-lite0", "photos/", "out")
    >>> pandas.read_parquet("out/rows")

    Stopped or killed, the same call goes on with the first shard that is not there. A script must
    call it under ``if __name__ == "__main__"``, since it starts processes.

    Args:
        model: a classifier, or its name.
        images: as for ``torchfbi.batch.inputs.find``.
        out: the folder for the rows.
        target: the class to explain: a number, a name or ``"top2"``; None for the top class.
        settings: of the walk; ``contrast`` by default.
        engine: ``"local"``, or ``"ray"`` for a cluster.
        batch: how many images go through the network together; None for what the first run in
            this folder took, or for as many as fit into memory, at most 8 on a CPU.
        shard: how many images a shard holds; None for what the first run took, or 128.
        threads: of PyTorch; None for what the first run took, or for as many as it uses now (one
            an actor on Ray).
        device: where the network runs.
        verify: test on each image whether its explanation holds; see docs/verify.md.
        mix: go on in a folder whose rows come from another network, setting or version.
        inputs: further inputs of a network of several, by the names of its forward's arguments,
            (1, ...): held for all images, and with them a part of the network.
        progress: called at the start and after every batch.
        options: of the engine: ``workers`` of the local one; see ``torchfbi.batch.cluster``.

    Raises:
        ImageError, FileFormatError: there are no such images.
        SettingsError: a number below 1, or the folder holds rows made otherwise.
        StorageError: the folder cannot be written. What was written is whole.
        ModelError, CaptureError, InputError, TargetError: as for ``torchfbi.explain``.
    """
    if engine not in ENGINES:
        raise SettingsError(f"engine is {engine!r}: choose {' or '.join(ENGINES)}.")
    store = Store(out)
    first = store.manifest() or {}
    model = load(model) if isinstance(model, str) else model
    job = Job(
        find(images, without=out),
        holding(model, inputs) if inputs else model,
        Settings.contrast() if settings is None else settings,
        target,
        shard=shard or _number(first, "shard") or 128,
        batch=batch or _number(first, "batch") or 0,
        threads=threads
        or _number(first, "threads")
        or (torch.get_num_threads() if engine == "local" else 1),
        device=device,
        verify=verify,
    )
    if not job.batch:
        graph = capture(job.model.module, job.model.blank())
        job = replace(job, batch=min(job.shard, batch_size(graph, device)))
    if min(job.shard, job.batch, job.threads) < 1:
        raise SettingsError("shard, batch and threads must be at least 1.")
    with store.opened(job, mix):
        explain = partial(ENGINES[engine], **options)
        explained = _run(job, store, explain, progress or (lambda step: None))
    return Done(len(job), failures(store), explained)


def _run(job: Job, store: Store, engine: Engine, progress: Callable[[Progress], None]) -> int:
    missing = store.missing(job)
    todo = sum(slice_.stop - slice_.start for slice_ in job.slices(missing))
    explained = failed = 0
    progress(Progress(len(job) - todo, len(job), failed))
    if not missing:
        return 0
    parts: dict[int, dict[int, list[Row]]] = {shard: {} for shard in missing}
    with closing(engine(job, job.slices(missing))) as batches:  # type: ignore[type-var]
        for slice_, rows in batches:
            part = parts[slice_.shard]
            part[slice_.start] = rows
            explained += len(rows)
            failed += sum(row["error"] is not None for row in rows)
            if len(part) == sum(1 for _ in job.slices([slice_.shard])):
                store.write(slice_.shard, [row for piece in part.values() for row in piece])
                del parts[slice_.shard]
            progress(Progress(len(job) - todo + explained, len(job), failed))
    return explained


def _number(manifest: dict[str, Any], name: str) -> int | None:
    """What the first run chose; None where it says nothing of use."""
    found = manifest.get(name)
    return found if isinstance(found, int) and found > 0 else None


def failures(store: Store) -> list[tuple[str, str]]:
    """Name and error of every image in the folder that could not be explained."""
    rows = store.every(["path", "error"])
    return [(row["path"], row["error"]) for row in rows if row["error"] is not None]
