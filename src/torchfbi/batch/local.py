"""The local engine: the network in this process, decoding in others."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from torchfbi.batch.decode import Decoded, decode
from torchfbi.batch.explainer import Explainer
from torchfbi.batch.job import Job, Slice
from torchfbi.batch.pool import Decoders
from torchfbi.batch.rows import Row
from torchfbi.system.threads import threads


def explain(
    job: Job, slices: Iterable[Slice], workers: int | None = None
) -> Iterator[tuple[Slice, list[Row]]]:
    """Explain batch after batch.

    Args:
        job: what to do.
        slices: the batches.
        workers: how many processes decode; by default as many as cores are left, at most four.
            0: this one does, too, and no process is started.

    Raises:
        CaptureError, InputError, TargetError: as for ``Explainer``.
    """
    count = min(4, max(1, (os.cpu_count() or 1) - 1)) if workers is None else workers
    ahead = closing(Decoders(job, slices, count) if count else _here(job, slices))
    with ahead as decoders, threads(job.threads):
        explainer = Explainer(job)
        for slice_, decoded in decoders:
            yield slice_, explainer(decoded)


def _here(job: Job, slices: Iterable[Slice]) -> Generator[tuple[Slice, list[Decoded]]]:
    for slice_ in slices:
        indices = range(slice_.start, slice_.stop)
        yield slice_, decode(job.source, job.model.preprocess, indices)
