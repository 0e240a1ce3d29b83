"""The photos that the server keeps in memory: for a while, under names that nobody can guess."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torchfbi.errors import LimitError
from torchfbi.models.images import Photo

LEAST = 2**16
"""What a photo counts for at least, in bytes: millions of tiny ones would take memory as well."""


class ForgottenError(LimitError):
    """The photo is not kept, or no longer."""


@dataclass
class _Kept:
    photo: Photo
    size: int
    until: float  # unless it is asked about before
    away: float  # unless its page says before that it is still open


class Store:
    """Photos by token. Nothing is ever written to the disk.

    Args:
        room: how many bytes; the oldest photos make room for new ones.
        age: for how many seconds a photo is kept without being asked about.
        away: for how many that of a page which no longer says that it is open.
        forgotten: called whenever photos were forgotten.
    """

    def __init__(
        self, room: int, age: float, away: float, forgotten: Callable[[], None] = lambda: None
    ) -> None:
        self._room, self._age, self._away, self._forgotten = room, age, away, forgotten
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, photo: Photo, stay: bool = False) -> str:
        """Keep a photo and return its token; ``stay`` if it is that of a page, as ``stay`` says."""
        token, now = secrets.token_urlsafe(16), time.monotonic()
        size = max(LEAST, photo.pixels.nbytes)
        with self._lock:
            self._kept[token] = _Kept(photo, size, now + self._age, float("inf"))
            if stay:
                self._kept[token].away = now + self._away
        self.tidy()
        return token

    def get(self, token: str) -> Photo:
        """The photo of a token.

        Raises:
            ForgottenError: it is not kept, or no longer.
        """
        self.tidy()
        with self._lock:
            kept = self._find(token)
            kept.until = time.monotonic() + self._age
            self._kept.move_to_end(token)
            return kept.photo

    def stay(self, token: str) -> None:
        """Its page is open: from now on it has to say so again and again.

        Raises:
            ForgottenError: it is not kept, or no longer.
        """
        with self._lock:
            self._find(token).away = time.monotonic() + self._away

    def drop(self, token: str) -> None:
        """Forget a photo, if it is kept."""
        with self._lock:
            gone = self._kept.pop(token, None)
        if gone is not None:
            self._forgotten()

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
            for token in gone:
                del self._kept[token]
        if gone:
            self._forgotten()

    def __contains__(self, token: str) -> bool:
        return token in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def _find(self, token: str) -> _Kept:
        if token not in self._kept:
            raise ForgottenError("The server no longer keeps this photo: choose it again.")
        return self._kept[token]
