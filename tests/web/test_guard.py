"""Nothing but what the page needs gets past the guard."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
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
def guard() -> Guard:
    return Guard(echo, ["fbi.example"], Limits(upload=1000, bodies=3000, slow=0.2), None)


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


def test_browsers_say_where_a_request_comes_from(guard: Guard) -> None:
    for site in ("cross-site", "same-site"):  # other ports of this machine are same-site
        assert ask(guard, path="/config", headers={"sec-fetch-site": site}).status_code == 403
        assert ask(guard, headers={"sec-fetch-site": site}).status_code == 200  # a link to it
    for site in ("same-origin", "none"):
        assert ask(guard, path="/config", headers={"sec-fetch-site": site}).status_code == 200


def test_large_bodies_are_refused_whether_announced_or_not(guard: Guard) -> None:
    assert ask(guard, "POST", "/photo", content=b"x" * 1000).text == "1000"
    assert ask(guard, "POST", "/photo", content=b"x" * 1001).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert ask(guard, "POST", "/photo", content=chunks()).status_code == 413
    for lie in ("minus one", "-1", "9" * 5000, "²"):
        lying = {"content-length": lie.encode()}
        assert ask(guard, "POST", "/photo", content=b"x", headers=lying).status_code == 400


def test_a_slow_body_is_given_up(guard: Guard) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.05)

    assert ask(guard, "POST", "/photo", content=trickle()).status_code == 408


def test_the_memory_for_bodies_is_bounded_and_given_back() -> None:
    guard = Guard(echo, [], Limits(upload=1000, bodies=3000, slow=60), None)

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


def test_the_password_guards_everything() -> None:
    guard = Guard(echo, [], Limits(), "me:säcret:1")

    def with_(text: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    for path in ("/", "/photo", "/config", "/photo/a/flow", "/static/page.js"):
        refused = ask(guard, path=path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert ask(guard, path=path, headers=with_("me:säcret")).status_code == 401
        assert (
            ask(guard, path=path, headers={"authorization": "Basic ü".encode()}).status_code == 401
        )
        assert ask(guard, path=path, headers=with_("me:säcret:1")).status_code == 200


def test_the_browser_is_told_to_ask_nobody_else_and_to_keep_nothing(guard: Guard) -> None:
    headers = ask(guard).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert not {"unsafe", "http", "*"} & set(policy.replace("-", " ").replace("'", " ").split())
    assert headers["cache-control"] == "no-store"
    refused = ask(guard, headers={"host": "evil.example"}).headers  # refusals as well
    assert refused["content-security-policy"] == policy
