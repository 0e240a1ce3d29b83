"""The two steps in which programs asked the page of before, which was made with Gradio.

``POST /gradio_api/call/explain`` with ``{"data": [photo, target, model, preset, settings]}`` gives
an ``event_id``, and ``GET /gradio_api/call/explain/EVENT_ID`` the answer as a server-sent event.
The photo is ``{"path": TOKEN}`` with a token that ``POST /photo`` gave; anything else is none.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable

from torchfbi.errors import InputError, TorchFBIError
from torchfbi.web import query, views
from torchfbi.web.service import Service

LARGEST = 8_000
"""Bytes of a request."""


def event_of(body: bytes) -> str:
    """A name for what is asked, which holds all of it: nothing is kept until the second step.

    Raises:
        InputError: it is not of that form.
    """
    if len(body) > LARGEST:
        raise InputError(f"The request has {len(body)} bytes: give at most {LARGEST}.")
    try:
        photo, *rest = json.loads(body)["data"]
        text = json.dumps([photo["path"], *rest]).encode()
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"This is no request: {type(error).__name__}. Give data.") from None
    return base64.urlsafe_b64encode(text).decode()


async def answer(service: Service, event: str, view: Callable[..., bytes]) -> bytes:
    """What was asked, answered as the one event of a stream."""
    try:
        return b"event: complete\ndata: [" + await _explained(service, event, view) + b"]"
    except TorchFBIError as error:
        return b"event: error\ndata: " + views.encode(str(error))


def _explained(service: Service, event: str, view: Callable[..., bytes]) -> Awaitable[bytes]:
    try:
        token, *rest = json.loads(base64.urlsafe_b64decode(event))
        names = ("target", "model", "preset", "settings")
        asked = {name: value for name, value in zip(names, rest, strict=False) if value}
        asked["settings"] = json.dumps(asked.get("settings", {}))
    except (ValueError, TypeError, RecursionError):
        raise InputError("There is no such event.") from None
    if not all(isinstance(value, str) for value in (token, *asked.values())):
        raise InputError("The photo is a token, and target, model and preset are names.")
    return service.answer(query.question(service, token, asked), view)
