"""The server: the page and its addresses behind one guard."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import uvicorn

from torchfbi.models import Model
from torchfbi.models.images import Photo
from torchfbi.models.source import Source
from torchfbi.system.allocator import share_one_heap
from torchfbi.web.app import application
from torchfbi.web.connections import Connection, Connections
from torchfbi.web.examples import examples
from torchfbi.web.guard import Guard
from torchfbi.web.limits import Limits
from torchfbi.web.service import Service


def configured(
    service: Service, photos: dict[str, Photo], hosts: Sequence[str] = (), auth: str | None = None
) -> uvicorn.Config:
    """How uvicorn is to serve.

    Args:
        service: answers the questions.
        photos: the examples by name.
        hosts: names beside those of the loopback under which the server may be asked.
        auth: ``user:password`` that a browser has to give, or None.
    """
    limits = service.limits
    protocol: Any = functools.partial(Connection, Connections(limits))
    return uvicorn.Config(
        Guard(application(service, photos), hosts, limits, auth),
        http=protocol,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        proxy_headers=False,  # an address that a visitor may choose is none
        server_header=False,
        timeout_graceful_shutdown=2,
    )


async def tidying(service: Service) -> None:
    """Forget what is to be forgotten, also where nobody asks for anything."""
    while True:
        await asyncio.sleep(service.limits.tick)
        service.tidy()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM end the block, in good order: both are what stops a server.

    uvicorn stops and then raises the signal anew, which must not kill the process either.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def serve(
    networks: Mapping[str, Source],
    host: str = "127.0.0.1",
    port: int = 7860,
    *,
    hosts: Sequence[str] = (),
    auth: str | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] = lambda url: None,
    loaded: Callable[[Model], None] = lambda model: None,
) -> None:
    """Serve the page until it is interrupted (:func:`stoppable`). Nothing is written to the disk.

    Args:
        networks: the networks to choose from; the first is loaded and captured before the start.
        host: the address to listen at.
        port: the port; 0 for a free one.
        hosts: further names under which the server may be asked for, such as a proxy's.
        auth: ``user:password``, or None.
        limits: what a visitor may ask for.
        ready: called with the page's address as soon as it can be opened.
        loaded: called with each of the networks as soon as it is loaded.

    Raises:
        ModelError, CaptureError: the first network cannot be loaded or explained.
        OSError: the port is taken.
    """
    share_one_heap()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    name = f"[{host}]" if ":" in host else host
    service = Service(networks, limits or Limits(), loaded)

    async def run(listening: socket.socket) -> None:
        server = uvicorn.Server(configured(service, examples(), [name, *hosts], auth))
        clock = asyncio.create_task(tidying(service))
        ready(f"http://{name}:{listening.getsockname()[1]}/")
        await server.serve([listening])
        clock.cancel()

    try:
        with socket.create_server((host, port), family=family) as listening:
            service.warm()
            asyncio.run(run(listening))
    finally:
        service.close()
