"""What visitors sent and the server keeps: for a while, under names that nobody can guess."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from torchfbi.errors import LimitError

T = TypeVar("T")


class ForgottenError(LimitError):
    """What was asked about is not kept, or no longer."""


@dataclass
class _Kept(Generic[T]):
    content: T
    size: int
    until: float  # unless it is asked about before
    away: float  # unless its page says before that it is still open


class Store(Generic[T]):
    """Things by token. Nothing is ever written to the disk.

    Args:
        room: how many bytes, or whatever ``size`` counts; the oldest make room for new ones.
        age: for how many seconds a thing is kept without being asked about.
        away: for how many that of a page which no longer says that it is open.
        size: of a thing.
        forgotten: called with the things that were forgotten, whenever some were.
        what: is said to be no longer kept.
        prefix: of all tokens.
    """

    def __init__(
        self,
        room: int,
        age: float,
        away: float,
        size: Callable[[T], int],
        forgotten: Callable[[list[T]], None] = lambda gone: None,
        what: str = "photo: choose it again",
        prefix: str = "",
    ) -> None:
        self._room, self._age, self._away, self._size = room, age, away, size
        self._forgotten, self._what, self._prefix = forgotten, what, prefix
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, content: T, stay: bool = False) -> str:
        """Keep a thing and return its token; ``stay`` if it is that of a page, as ``stay`` says."""
        token, now = self._prefix + secrets.token_urlsafe(16), time.monotonic()
        with self._lock:
            self._kept[token] = _Kept(content, self._size(content), now + self._age, float("inf"))
            if stay:
                self._kept[token].away = now + self._away
        self.tidy()
        return token

    def get(self, token: str) -> T:
        """The thing of a token.

        Raises:
            ForgottenError: it is not kept, or no longer.
        """
        self.tidy()
        with self._lock:
            kept = self._find(token)
            kept.until = time.monotonic() + self._age
            self._kept.move_to_end(token)
            return kept.content

    def stay(self, token: str) -> None:
        """Its page is open: from now on it has to say so again and again.

        Raises:
            ForgottenError: it is not kept, or no longer.
        """
        with self._lock:
            self._find(token).away = time.monotonic() + self._away

    def drop(self, token: str) -> None:
        """Forget a thing, if it is kept."""
        with self._lock:
            gone = self._kept.pop(token, None)
        if gone is not None:
            self._forgotten([gone.content])

    def clear(self) -> None:
        """Forget everything."""
        for token in list(self._kept):
            self.drop(token)

    def tidy(self) -> None:
        """Forget what is too old and what there is no room for."""
        now = time.monotonic()
        with self._lock:
            gone = [t for t, kept in self._kept.items() if min(kept.until, kept.away) < now]
            left = sum(kept.size for token, kept in self._kept.items() if token not in gone)
            for token, kept in list(self._kept.items())[:-1]:  # the latest stays in any case
                if left > self._room and token not in gone:
                    gone.append(token)
                    left -= kept.size
            contents = [self._kept.pop(token).content for token in gone]
        if contents:
            self._forgotten(contents)

    def __contains__(self, token: str) -> bool:
        return token in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def _find(self, token: str) -> _Kept[T]:
        if token not in self._kept:
            raise ForgottenError(f"The server no longer keeps this {self._what}.")
        return self._kept[token]
