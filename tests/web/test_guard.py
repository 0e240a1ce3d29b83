"""Nothing but what the page needs gets past the guard."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from torchfbi.web.guard import Guard
from torchfbi.web.limits import Limits


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Says how much it received."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def ask(
    guard: Guard, method: str = "GET", path: str = "/", host: str = "localhost:7860", **options: Any
) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, **options)

    return asyncio.run(go())


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard(echo, ["fbi.example"], Limits(upload=1000, bodies=3000, slow=0.2), None, tmp_path)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:7860", "FBI.example:1"])
def test_known_hosts_are_served(guard: Guard, host: str) -> None:
    assert ask(guard, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7860", "fbi", ""]
)
def test_a_name_made_to_point_here_is_refused(guard: Guard, host: str) -> None:
    assert ask(guard, headers={"host": host}).status_code == 400


def test_pages_of_other_sites_cannot_ask(guard: Guard) -> None:
    for origin in ("http://evil.example", "http://localhost:1", "null"):
        assert ask(guard, "POST", "/photo", headers={"origin": origin}).status_code == 403
    own = {"origin": "http://localhost:7860"}
    assert ask(guard, "POST", "/photo", headers=own, content=b"1").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:22/",
        "/gradio_api/run/explain",
        "/gradio_api/vibe-edit",
        "/gradio_api/run-history/connect",
        "/gradio_api/custom_component/1/client/component/x.js",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/gradio_api/component_server",
        "/monitoring",
        "/docs",
        "/download/../../etc/passwd",
        "/download/abc",
    ],
)
def test_other_paths_do_not_exist(guard: Guard, path: str) -> None:
    for method in ("GET", "POST"):
        answer = ask(guard, method, path)
        assert answer.status_code == 404
        assert answer.json() == {"error": "There is nothing here."}


def test_large_bodies_are_refused_whether_announced_or_not(guard: Guard) -> None:
    assert ask(guard, "POST", "/photo", content=b"x" * 1000).text == "1000"
    assert ask(guard, "POST", "/photo", content=b"x" * 1001).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert ask(guard, "POST", "/photo", content=chunks()).status_code == 413
    lying = {"content-length": "minus one"}
    assert ask(guard, "POST", "/photo", content=b"x", headers=lying).status_code == 413


def test_a_slow_body_is_given_up(guard: Guard) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.05)

    assert ask(guard, "POST", "/photo", content=trickle()).status_code == 408


def test_the_memory_for_bodies_is_bounded_and_given_back(tmp_path: Path) -> None:
    guard = Guard(echo, [], Limits(upload=1000, bodies=3000, slow=60), None, tmp_path)

    async def many() -> list[int]:
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def part() -> AsyncIterator[bytes]:
                yield b"x" * 900
                await asyncio.sleep(0.05)
                yield b"x" * 50

            posts = (client.post("/photo", content=part()) for _ in range(6))
            return [answer.status_code for answer in await asyncio.gather(*posts)]

    codes = asyncio.run(many())
    assert set(codes) == {200, 503}
    assert guard._arriving == 0


def test_uploads_that_lie_unread_are_bounded(guard: Guard, tmp_path: Path) -> None:
    assert ask(guard, "POST", "/gradio_api/upload", content=b"x").status_code == 200
    (tmp_path / "one").write_bytes(b"x" * 3001)
    assert ask(guard, "POST", "/gradio_api/upload", content=b"x").status_code == 503


def test_the_password_guards_everything(tmp_path: Path) -> None:
    guard = Guard(echo, [], Limits(), "me:säcret:1", tmp_path)

    def with_(text: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    for path in ("/", "/photo", "/config", "/download/a.png", "/gradio_api/queue/join"):
        refused = ask(guard, path=path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert ask(guard, path=path, headers=with_("me:säcret")).status_code == 401
        assert (
            ask(guard, path=path, headers={"authorization": "Basic ü".encode()}).status_code == 401
        )
        assert ask(guard, path=path, headers=with_("me:säcret:1")).status_code == 200


def test_the_browser_is_told_to_ask_nobody_else(guard: Guard) -> None:
    policy = ask(guard).headers["content-security-policy"]
    assert "default-src 'self' data: blob:" in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy
