"""What one visitor may ask of the server, and the threads that work for all of them in turn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from torchfbi.errors import LimitError
from torchfbi.system.allocator import give_back

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The server's limits.

    Args:
        upload: the largest body of a request, in bytes.
        bodies: of all bodies that are arriving or waiting at once, in bytes.
        slow: how long a body may take to arrive, and an answer to be taken, in seconds.
        silent: how long a connection may be open without a request, in seconds.
        connections: how many may be open at once.
        each: how many of them from one address.
        pixels: the largest photo, width times height.
        seconds: how long an answer may take, with the wait for its turn.
        waiting: how many may wait for their turn.
        photos: how much memory photos may take, in bytes; the oldest go first.
        age: how long a photo is kept without being asked about, in seconds.
        away: how long that of a page is kept which no longer says that it is open, in seconds.
        tick: how often is looked for what is to be forgotten, in seconds.
        network: the largest network that a visitor may bring, in bytes; 0: none at all.
        memory: how much one may take, in bytes.
        networks: how many are kept at once; the oldest go first.
    """

    upload: int = 20 * 2**20
    bodies: int = 160 * 2**20
    slow: float = 30.0
    silent: float = 10.0
    connections: int = 200
    each: int = 64
    pixels: int = 25_000_000
    seconds: float = 60.0
    waiting: int = 16
    photos: int = 256 * 2**20
    age: float = 1800.0
    away: float = 180.0
    tick: float = 5.0
    network: int = 0
    memory: int = 4 * 2**30
    networks: int = 2


TIDIED = 8
"""After so many works free memory goes back to the system, which takes a few hundredths of a
second: it lies between what is kept, and otherwise grows."""


class Worker:
    """One thread that works for all: PyTorch uses all cores for each step, so more would be
    slower, and of two photos that are decoded at once both would be in memory."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # PyTorch counts its threads for each thread anew: as many as the server's own.
        self._pool = ThreadPoolExecutor(
            1, "torchfbi", torch.set_num_threads, (torch.get_num_threads(),)
        )
        self._places = threading.BoundedSemaphore(limits.waiting + 1)
        self._gone = threading.Event()  # of the work that is being done
        self._done = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Wait for the turn, do ``work`` and return what it returns.

        Work that is not done in time is not interrupted unless it asks :meth:`check`, but nobody
        waits for it any longer; it has its place in the line until it is done. Who no longer waits
        (a task that is cancelled) loses a turn that has not come.

        Raises:
            LimitError: too many wait already, or it was not done in time.
        """
        if not self._places.acquire(blocking=False):
            raise LimitError("The server is busy: too many are waiting. Try again in a moment.")
        gone = threading.Event()
        future = self._pool.submit(self._work, work, gone)
        future.add_done_callback(lambda _: self._places.release())
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait([waiting], timeout=self._limits.seconds)
            if waiting.done():
                return waiting.result()
        finally:
            gone.set()
            waiting.cancel()
            future.cancel()  # at once: the loop would tell it only after its turn might have come
            # An error's traceback has this frame: it would hold what holds it, photo and all.
            del waiting, future
        raise LimitError(
            f"The server had no answer within {self._limits.seconds:g} s: it is busy, or this "
            "was too much to ask for."
        )

    def check(self, *_: object) -> None:
        """For long work to call now and then, as its progress.

        Raises:
            LimitError: nobody waits for it any longer.
        """
        if self._gone.is_set():
            raise LimitError("Nobody waits for this any longer.")

    def _work(self, work: Callable[[], T], gone: threading.Event) -> T:
        self._gone = gone
        try:
            return work()
        finally:
            self._done += 1
            if self._done % TIDIED == 0:
                give_back()

    def close(self) -> None:
        """Let go of the thread, once what it does is done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
