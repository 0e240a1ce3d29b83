"""What the server keeps in memory for its visitors: for a while, under names nobody can guess."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from torchfbi.errors import LimitError

T = TypeVar("T")


@dataclass
class _Kept(Generic[T]):
    thing: T
    size: int
    owner: str | None
    used: float


class Shelf(Generic[T]):
    """Things by token. Nothing is ever written to the disk.

    Args:
        room: how many bytes.
        age: how many seconds without use.
    """

    def __init__(self, room: int, age: float) -> None:
        self._room, self._age = room, age
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, thing: T, size: int, owner: str | None = None) -> str:
        """Keep ``thing`` of ``size`` bytes and return its token; the oldest make room for it."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = _Kept(thing, size, owner, time.monotonic())
            self._tidy()
        return token

    def get(self, token: object, owner: str | None = None) -> T:
        """The thing of that token.

        Args:
            token: as ``put`` returned it.
            owner: whose it is from now on, if it was nobody's.

        Raises:
            LimitError: it is not kept, or no longer.
        """
        with self._lock:
            self._tidy()
            found = self._kept.get(token) if isinstance(token, str) else None
            if found is None:
                raise LimitError("The server no longer keeps this: choose the photo again.")
            found.used = time.monotonic()
            found.owner = found.owner or owner
            self._kept.move_to_end(token)  # type: ignore[arg-type]  # a str: it was found
            return found.thing

    def drop(self, owner: str) -> None:
        """Forget everything of one owner, whose session has ended."""
        with self._lock:
            for token in [token for token, kept in self._kept.items() if kept.owner == owner]:
                del self._kept[token]

    def __len__(self) -> int:
        return len(self._kept)

    def _tidy(self) -> None:
        """The first is the one that was not used for the longest time."""
        oldest = time.monotonic() - self._age
        total = sum(kept.size for kept in self._kept.values())
        while self._kept:
            first = next(iter(self._kept.values()))
            crowded = total > self._room and len(self._kept) > 1
            if first.used >= oldest and not crowded:
                break
            total -= first.size
            self._kept.popitem(last=False)
