"""Connections that ask nothing are closed, and hold nobody else up. With raw sockets."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pageserver import serving
from torchfbi.web.limits import Limits

HEAD = b"GET /config HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def impatient() -> Iterator[Any]:
    limits = Limits(silent=0.5, slow=0.5, each=6, upload=10_000)
    with serving(limits, "digits") as started:
        yield started


def connect(server: Any, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(sent)
    return connection


def closed(connection: socket.socket) -> bool:
    """Whether the server closes it, before the socket's own time is over."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, HEAD + b"\r\n"], ids=repr)
def test_silence_ends(impatient: Any, sent: bytes) -> None:
    with connect(impatient, sent) as connection:
        assert closed(connection)


def flood(connection: socket.socket, part: bytes, times: int, pause: float = 0.0) -> None:
    for _ in range(times):
        connection.sendall(part)
        time.sleep(pause)


def test_a_head_letter_by_letter_is_no_request(impatient: Any) -> None:
    with connect(impatient, HEAD) as connection, pytest.raises(ConnectionError):
        flood(connection, b"x", 600, 0.05)


def test_a_body_letter_by_letter_is_given_up(impatient: Any) -> None:
    head = b"POST /photo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\n"
    with connect(impatient, head) as connection:
        assert connection.recv(12) == b"HTTP/1.1 408"
        assert closed(connection)


def test_who_takes_no_answer_is_cut_off(impatient: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def describe(model: str, view: Any) -> bytes:
        return b"x" * 30_000_000

    monkeypatch.setattr(impatient.service, "describe", describe)
    with connect(impatient, HEAD.replace(b"config", b"classes") + b"\r\n") as connection:
        time.sleep(2)
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(2**20):
                received += len(part)
    assert received < 30_000_000


def test_requests_ahead_of_answers_do_not_pile_up(impatient: Any) -> None:
    with connect(impatient) as connection, pytest.raises(ConnectionError):
        flood(connection, (HEAD + b"\r\n") * 100, 5000)
    with connect(impatient, (HEAD + b"\r\n") * 2) as connection:  # two at once are no harm
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 2:
            received += connection.recv(2**20)


def test_a_crowd_of_silent_ones_gives_way(impatient: Any) -> None:
    crowd = [connect(impatient, HEAD[: i % 9]) for i in range(30)]
    assert httpx.get(f"{impatient.url}config").status_code == 200
    assert all(closed(connection) for connection in crowd)
    assert httpx.get(f"{impatient.url}config").status_code == 200
    for connection in crowd:
        connection.close()


def test_a_request_that_is_answered_is_not_cut_off(impatient: Any) -> None:
    waiting = impatient.service._worker  # longer than silence may last
    waiting._pool.submit(time.sleep, 1.5)
    assert httpx.get(f"{impatient.url}classes", timeout=30).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),
        b"GET " + b"/x" * 40_000 + b" HTTP/1.1\r\n",
        HEAD + b"A: b\r\n" * 20_000,
        b"POST /photo HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=range(7),
)
def test_what_is_no_http_is_refused(impatient: Any, sent: bytes) -> None:
    with connect(impatient) as connection:
        try:
            connection.sendall(sent)
        except ConnectionError:
            return
        try:
            answer = connection.recv(15)
        except ConnectionError:
            return
        assert answer[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 200 ", b"HTTP/1.1 408 ", b"")
    assert httpx.get(f"{impatient.url}config").status_code == 200
