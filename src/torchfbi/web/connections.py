"""Connections that ask nothing, or take nothing, are closed after seconds, before any password.

uvicorn has a limit for the time between two requests, but none until the first one, nor for a
head that arrives letter by letter, nor for who does not take an answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from torchfbi.web.limits import Limits


class Connections:
    """All that are open, the oldest first.

    Args:
        limits: how many there may be, and how long they may be silent.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: dict[Connection, str] = {}
        self._each: Counter[str] = Counter()

    def add(self, connection: Connection, address: str) -> None:
        """A new one. If there are too many, of this address or of all, one goes for it: the oldest
        that waits for no answer, itself where all others do."""
        self._open[connection] = address
        self._each[address] += 1
        if self._each[address] > self.limits.each:
            self._close([c for c, other in self._open.items() if other == address])
        elif len(self._open) > self.limits.connections:
            self._close(list(self._open))

    def remove(self, connection: Connection) -> None:
        """It was closed."""
        address = self._open.pop(connection, None)
        if address is not None:
            self._each[address] -= 1
            self._each += Counter()  # forget those of whom none is left

    def _close(self, among: list[Connection]) -> None:
        chosen = next((c for c in among if not c.is_answered), among[-1])
        self.remove(chosen)
        chosen.abort()


class Connection(H11Protocol):
    """One connection, with clocks of its own.

    Args:
        among: all connections of this server.
        how: as for uvicorn's protocol.
    """

    def __init__(self, among: Connections, **how: Any) -> None:
        super().__init__(**how)
        self._among = among
        self._clock: asyncio.TimerHandle | None = None

    @property
    def is_answered(self) -> bool:
        """Whether a whole request is here, and its answer is not yet."""
        return self._has_head and not self.cycle.more_body

    @property
    def _has_head(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def abort(self) -> None:
        """Close it at once, whatever is still to be sent."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._among.add(self, self.client[0] if self.client else "")
        self._wind(self._among.limits.silent)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._among.remove(self)
        self._wind(None)

    def data_received(self, data: bytes) -> None:
        if self.is_answered:  # who waits has nothing to say: requests ahead would pile up here
            self.abort()
            return
        super().data_received(data)
        if self._has_head:  # from now on the limits are those of bodies and answers
            self._wind(None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._has_head:  # a second request may have come with the first one
            self._wind(self._among.limits.silent)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wind(self._among.limits.slow)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wind(None if self._has_head else self._among.limits.silent)

    def _wind(self, seconds: float | None) -> None:
        """Close it after so long, and not as was said before; None: not at all."""
        if self._clock is not None:
            self._clock.cancel()
        self._clock = None if seconds is None else self.loop.call_later(seconds, self.abort)
