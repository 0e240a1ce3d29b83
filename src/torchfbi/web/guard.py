"""What every request has to pass before anything else sees it.

One ASGI middleware: known hosts only, the server's own pages only, a password where there is one,
the paths that the page needs and no others, and bodies that are neither too large nor too slow.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchfbi.web.limits import Limits

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

_PATHS = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.*"
    r"|/gradio_api/(info|startup-events|app_id|theme\.css|upload|cancel|login_check)/?"
    r"|/gradio_api/(queue/(join|data)|run/predict|heartbeat/\w+|call/.*)"
    r"|/photo|/api/explain|/download/[\w-]+\.\w+"
)
"""Gradio has more: files by path, a proxy, monitoring, an editor. None of it is needed here."""

_HEADERS = {
    # Also a proof that the page needs nothing from elsewhere: the browser would refuse it.
    "content-security-policy": "default-src 'self' data: blob:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """Wraps an application.

    Args:
        app: what is behind it.
        hosts: the names under which it may be asked for. A page of another site that makes its
            own name point here (DNS rebinding) is refused by its name.
        limits: of bodies.
        auth: ``user:password``, or None.
        folder: where uploads of ``gradio_client`` lie until they are read.
    """

    def __init__(
        self, app: ASGIApp, hosts: Iterable[str], limits: Limits, auth: str | None, folder: Path
    ) -> None:
        self._app = TrustedHostMiddleware(self._checked, [*LOOPBACK, *hosts], www_redirect=False)
        self._behind = app
        self._limits = limits
        self._auth = None if auth is None else b"Basic " + base64.b64encode(auth.encode())
        self._folder = folder
        self._arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._behind(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no web sockets here
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            body = await self._body(Headers(scope=scope), receive)
            if isinstance(body, Response):
                refusal = body
            else:
                try:
                    await self._behind(scope, _replay(body, receive), _secured(send))
                finally:
                    self._arriving -= len(body)
                return
        await (refusal or self._behind)(scope, receive, _secured(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and origin.partition("//")[2] != headers.get("host"):
            return _error(403, "Requests from other sites are refused.")
        if self._auth is not None and not hmac.compare_digest(
            self._auth, headers.get("authorization", "").encode()
        ):
            refusal = _error(401, "Name and password, please.")
            refusal.headers["www-authenticate"] = 'Basic realm="torchfbi", charset="UTF-8"'
            return refusal
        if not _PATHS.fullmatch(scope["path"]):
            return _error(404, "There is nothing here.")
        if scope["path"] == "/gradio_api/upload" and _bytes_in(self._folder) > self._limits.bodies:
            return _error(503, "Too many uploads lie here unread: try again in a few minutes.")
        return None

    async def _body(self, headers: Headers, receive: Receive) -> bytes | Response:
        """The whole body, counted into what is arriving; or why it is refused."""
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._limits.upload:
            return self._too_large()
        chunks: list[bytes] = []
        try:
            refusal = await asyncio.wait_for(self._collect(chunks, receive), self._limits.slow)
        except asyncio.TimeoutError:
            refusal = _error(408, "The request took too long to arrive.")
        except BaseException:
            self._arriving -= sum(map(len, chunks))
            raise
        if refusal is None:
            return b"".join(chunks)
        self._arriving -= sum(map(len, chunks))
        return refusal

    async def _collect(self, chunks: list[bytes], receive: Receive) -> Response | None:
        """Receive into ``chunks`` until all is there, or return why not."""
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _error(400, "The connection was closed.")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            self._arriving += len(chunks[-1])
            if size > self._limits.upload:
                return self._too_large()
            if self._arriving > self._limits.bodies:
                return _error(503, "The server is busy: try again in a moment.")
            if not message.get("more_body", False):
                return None

    def _too_large(self) -> Response:
        return _error(
            413, f"Too large: this server takes up to {self._limits.upload / 2**20:g} MiB."
        )


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it may have been read and deleted meanwhile
            total += path.stat().st_size
    return total


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hands the body on, then whatever the connection says, such as that it was closed."""
    left = [body]

    async def replay() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay


def _secured(send: Send) -> Send:
    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return secured
