"""Decoding in worker processes, a few batches ahead of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch

from torchfbi.batch.decode import Decoded, decode
from torchfbi.batch.job import Job, Slice
from torchfbi.batch.sources import Source, printable
from torchfbi.models.preprocess import Preprocess
from torchfbi.system import children

AHEAD = 2
"""Batches that each process is ahead: enough that the network need not wait, and little memory."""

_work: tuple[Source, Preprocess]  # of a worker process

Pending = tuple[Slice, "Future[list[Decoded]]"]


class Decoders:
    """Processes that read and decode batches, in order and ahead of time.

    An image at which a process dies, by a fault in a decoder or for want of memory, becomes an
    error like any other: its batch is decoded once more, image by image.

    Args:
        job: its source and preprocessing are sent to each process.
        slices: the batches to decode; the first ones are begun at once.
        workers: how many processes.
    """

    def __init__(self, job: Job, slices: Iterable[Slice], workers: int) -> None:
        self._job, self._workers = job, workers
        self._todo = iter(slices)
        self._pool = self._start()
        self._pending: deque[Pending] = deque()
        for _ in range(AHEAD * workers):
            self._submit()

    def __iter__(self) -> Iterator[tuple[Slice, list[Decoded]]]:
        while self._pending:
            slice_, future = self._pending[0]
            try:
                decoded = future.result()
            except BrokenProcessPool:
                decoded = self._one_by_one(slice_)
            self._pending.popleft()
            self._submit()
            yield slice_, decoded

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._workers,
            mp_context=children.context(__name__),
            initializer=_begin,
            initargs=(self._job.source, self._job.model.preprocess),
        )

    def _submit(self) -> None:
        for slice_ in self._todo:
            self._pending.append((slice_, self._pool.submit(_decode, slice_)))
            return

    def _one_by_one(self, slice_: Slice) -> list[Decoded]:
        """A batch during which the processes died: whoever kills one alone is found out."""
        found: list[Decoded] = []
        self._restart()
        for index in range(slice_.start, slice_.stop):
            try:
                one = slice_._replace(start=index, stop=index + 1)
                found += self._pool.submit(_decode, one).result()
            except BrokenProcessPool:
                self._restart()
                reason = "its decoder crashed or ran out of memory. Save it anew as PNG."
                name = printable(self._job.source.names[index])
                found.append(Decoded(index, name, error=f"{name}: {reason}"))
        rest = [waiting for waiting, _ in list(self._pending)[1:]]
        self._pending = deque([self._pending[0]])
        self._pending += [(waiting, self._pool.submit(_decode, waiting)) for waiting in rest]
        return found

    def _restart(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._start()


def _begin(source: Source, preprocess: Preprocess) -> None:
    """Make a worker process ready."""
    global _work
    _work = source, preprocess
    torch.set_num_threads(1)
    children.belong()


def _decode(slice_: Slice) -> list[Decoded]:
    return decode(*_work, range(slice_.start, slice_.stop))
