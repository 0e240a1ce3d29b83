"""The local engine: the network in this process, decoding in others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing

from torchfbi.batch.explainer import Explainer
from torchfbi.batch.job import Job, Slice
from torchfbi.batch.pool import Decoders
from torchfbi.batch.rows import Row
from torchfbi.threads import threads


def explain(
    job: Job, slices: Iterable[Slice], workers: int | None = None
) -> Iterator[tuple[Slice, list[Row]]]:
    """Explain batch after batch.

    Args:
        job: what to do.
        slices: the batches.
        workers: how many processes decode; by default as many as cores are left, at most four.

    Raises:
        CaptureError, InputError, TargetError: as for ``Explainer``.
    """
    count = workers or min(4, max(1, (os.cpu_count() or 1) - 1))
    with closing(Decoders(job, slices, count)) as decoders, threads(job.threads):
        explainer = Explainer(job)
        for slice_, decoded in decoders:
            yield slice_, explainer(decoded)
