"""Silence for one thread, though streams and warning filters are the whole process's.

All that this package redirects, it redirects here, one thread at a time: two that put back what
they found would leave the other's redirection behind.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Stream = Literal["stdout", "stderr"]

_lock = threading.RLock()


@contextmanager
def quiet(
    *streams: Stream, onto: Stream | None = None, warn: bool = False, loggers: Collection[str] = ()
) -> Iterator[None]:
    """Meanwhile this thread prints nothing to these streams and gives no warnings; other threads
    do as before.

    Args:
        streams: which ones.
        onto: the stream that gets what is printed to them instead.
        warn: leave warnings alone.
        loggers: the names of those that are silenced as well.
    """
    with _lock:
        here = _Here()
        ours = {
            name: _Hushed(getattr(sys, name), onto and getattr(sys, onto), here) for name in streams
        }
        for stream in streams:
            setattr(sys, stream, ours[stream])
        ignore: Any = ("ignore", here, Warning, None, 0)
        filters: Any = warnings.filters
        if not warn:
            filters.insert(0, ignore)
        for name in loggers:
            logging.getLogger(name).addFilter(here.is_foreign)
        try:
            yield
        finally:
            here.over = True  # whoever copied our filter or stream meanwhile is left alone
            if ignore in filters:
                filters.remove(ignore)
            for name in loggers:
                logging.getLogger(name).removeFilter(here.is_foreign)
            for stream in streams:
                if getattr(sys, stream) is ours[stream]:
                    setattr(sys, stream, ours[stream].before)


class _Here:
    """As the pattern of a warning filter: fits any text, but only in the thread that made it."""

    def __init__(self) -> None:
        self.thread, self.over = threading.get_ident(), False

    def match(self, text: str = "") -> bool:
        return not self.over and threading.get_ident() == self.thread

    def is_foreign(self, record: logging.LogRecord) -> bool:
        return not self.match()


class _Hushed:
    """A stream that swallows, or turns elsewhere, what one thread prints."""

    def __init__(self, before: Any, instead: Any, here: _Here) -> None:
        self.before, self._instead, self._here = before, instead, here

    def write(self, text: str) -> int:
        if not self._here.match():
            return int(self.before.write(text))
        return len(text) if self._instead is None else int(self._instead.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.before, name)
