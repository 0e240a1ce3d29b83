"""What every request has to pass before anything else sees it.

One ASGI middleware: known hosts only, the server's own pages only, a password where there is one,
and bodies that are neither too large nor too slow.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchfbi.web.limits import Limits

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

NETWORK = "/network"
"""Where visitors bring networks, which may be larger than photos."""

_HEADERS = {
    # Also a proof that the page needs nothing from elsewhere: the browser would refuse it.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; form-action 'none'; "
    "base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",  # no photo on the disk of the browser's machine either
}


class Guard:
    """Wraps an application.

    Args:
        app: what is behind it.
        hosts: the names under which it may be asked for. A page of another site that makes its
            own name point here (DNS rebinding) is refused by its name.
        limits: of bodies.
        auth: ``user:password``, or None.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], limits: Limits, auth: str | None):
        self._app = TrustedHostMiddleware(self._checked, [*LOOPBACK, *hosts], www_redirect=False)
        self._behind = app
        self._limits = limits
        self._auth = None if auth is None else b"Basic " + base64.b64encode(auth.encode())
        self._arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._behind(scope, receive, send)
        elif scope["type"] == "http":  # no web sockets here
            await self._app(scope, receive, _secured(send))

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := self._refusal(scope):
            await refusal(scope, receive, send)
            return
        if scope["method"] in ("GET", "HEAD"):  # whose bodies nobody reads
            await self._behind(scope, receive, send)
            return
        body, most = bytearray(), self._limits.upload
        if scope["path"] == NETWORK:
            most = max(most, self._limits.network)
        try:
            refusal = await self._receive(body, most, Headers(scope=scope), receive)
            await (refusal or self._behind)(scope, _replay(body, receive), send)
        finally:
            self._arriving -= len(body)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("//")[2] != headers.get("host")
        # Links from elsewhere may open the page. Other ports of this machine are other sites.
        site = headers.get("sec-fetch-site", "none")
        if foreign or (site not in ("same-origin", "none") and scope["path"] != "/"):
            return _error(403, "Requests from other sites are refused.")
        if self._auth is not None and not hmac.compare_digest(
            self._auth, headers.get("authorization", "").encode()
        ):
            refusal = _error(401, "Name and password, please.")
            refusal.headers["www-authenticate"] = 'Basic realm="torchfbi", charset="UTF-8"'
            return refusal
        return None

    async def _receive(
        self, body: bytearray, most: int, headers: Headers, receive: Receive
    ) -> Response | None:
        """Receive the whole body, counted into what is arriving; or why it is refused."""
        slow = self._limits.slow * most / self._limits.upload
        announced = headers.get("content-length", "0")
        if not announced.isdecimal() or len(announced) > 15:
            return _error(400, "The length of the request is no number.")
        if int(announced) > most:
            return _too_large(most)
        try:
            return await asyncio.wait_for(self._collect(body, most, receive), slow)
        except asyncio.TimeoutError:
            return _error(408, "The request took too long to arrive.")

    async def _collect(self, body: bytearray, most: int, receive: Receive) -> Response | None:
        """Receive into ``body`` until all is there, or return why not."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return _error(400, "The connection was closed.")
            part = message.get("body", b"")
            body += part
            self._arriving += len(part)
            if len(body) > most:
                return _too_large(most)
            if self._arriving > self._limits.bodies + self._limits.network:
                return _error(503, "The server is busy: try again in a moment.")
            if not message.get("more_body", False):
                return None


def _too_large(most: int) -> Response:
    return _error(413, f"Too large: this server takes up to {most / 2**20:g} MiB.")


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


def _replay(body: bytearray, receive: Receive) -> Receive:
    """Hands the body on, then whatever the connection says, such as that it was closed."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


def _secured(send: Send) -> Send:
    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return secured
