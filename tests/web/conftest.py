"""A server in a thread of the tests, with a desk that can be looked into."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from torchfbi.web.desk import Desk
from torchfbi.web.limits import Limits
from torchfbi.web.server import application, surroundings


@dataclass
class Server:
    url: str
    desk: Desk
    folder: Path


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    limits = Limits(upload=2**20, pixels=10_000_000)
    desk = Desk(["efficientnet-lite0", "digits"], limits)
    with socket.create_server(("127.0.0.1", 0)) as listening, surroundings() as folder:
        desk.warm()
        started = threading.Event()
        servers: list[uvicorn.Server] = []

        async def run() -> None:
            config = uvicorn.Config(
                application(desk, folder), log_level="warning", timeout_graceful_shutdown=1
            )
            servers.append(uvicorn.Server(config))
            started.set()
            await servers[0].serve([listening])

        thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
        thread.start()
        started.wait()
        yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}/", desk, folder)
        servers[0].should_exit = True
        thread.join(60)  # a browser that a failed test left open would keep it for ever
        desk.close()
