"""A server in a thread of the tests, with a service that can be looked into."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import uvicorn

from hostile.networks import model, node
from torchfbi.models import Model
from torchfbi.models.source import Source
from torchfbi.web.examples import examples
from torchfbi.web.limits import Limits
from torchfbi.web.server import configured, tidying
from torchfbi.web.service import Service
from trained import trained


@dataclass
class Server:
    url: str
    service: Service

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])


class Shared(Source):
    """A network that all tests of this process share."""

    def load(self) -> Model:
        return trained(self.name)


@contextlib.contextmanager
def serving(limits: Limits, *models: str) -> Iterator[Server]:
    """The server, until the block ends."""
    service = Service({name: Shared(name) for name in models}, limits)
    service.warm()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        started = threading.Event()
        servers: list[uvicorn.Server] = []

        async def run() -> None:
            servers.append(uvicorn.Server(configured(service, examples())))
            clock = asyncio.create_task(tidying(service))
            started.set()
            await servers[0].serve([listening])
            clock.cancel()

        thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
        thread.start()
        started.wait()
        yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}/", service)
        servers[0].should_exit = True
        thread.join(60)  # a browser that a failed test left open would keep it for ever
        service.close()


def small() -> bytes:
    """A classifier of three classes, as an ONNX file that a visitor may bring."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "v": random.normal(size=(8, 3)).astype(np.float32),
    }
    nodes = [
        node("Conv", "x w", "a"),
        node("Relu", "a", "b"),
        node("GlobalAveragePool", "b", "c"),
        node("Flatten", "c", "d"),
        node("MatMul", "d v", "y"),
    ]
    content: bytes = model(nodes, weights, (1, 3, 32, 32)).SerializeToString()
    return content


class TwoThreads:
    """Whoever unpickles this asks PyTorch for two threads."""

    def __reduce__(self) -> tuple[object, ...]:
        return torch.set_num_threads, (2,)


def threads(*_: object) -> dict[str, int]:
    """A view that says with how many threads its process explains."""
    return {"threads": torch.get_num_threads()}
