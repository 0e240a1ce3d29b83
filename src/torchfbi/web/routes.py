"""Plain HTTP: a photo in, an explanation or its files out. Nothing touches the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from torchfbi import plot
from torchfbi.errors import LimitError, SettingsError, TorchFBIError
from torchfbi.web import service
from torchfbi.web.desk import Answer, Desk
from torchfbi.web.snippet import snippet

KINDS = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "npz": "application/octet-stream",
    "json": "application/json",
    "py": "text/x-python; charset=utf-8",
}


def routes(desk: Desk) -> list[BaseRoute]:
    """``POST /photo``, ``POST /api/explain`` and ``GET /download/TOKEN.SUFFIX``."""

    def photo(body: bytes, name: str) -> dict[str, Any]:
        found = desk.read(body, name)
        return {"photo": desk.photos.put(found, found.pixels.nbytes), "name": found.name}

    async def keep(request: Request) -> Response:
        name = request.query_params.get("name", "photo")[:200]
        return await _answered(photo, await request.body(), name)

    def explained(body: bytes, asked: dict[str, str]) -> dict[str, Any]:
        found = desk.read(body, asked.pop("name", "photo")[:200])
        try:
            asked["settings"] = json.loads(asked.get("settings", "{}"))
        except json.JSONDecodeError as error:
            raise SettingsError(f"settings are no JSON: {error}.") from None
        if unknown := sorted(asked.keys() - {"target", "model", "preset", "settings"}):
            raise SettingsError(f"unknown parameter {', '.join(unknown)}.")
        return service.describe(*service.answer(desk, service.question(desk, found, **asked)))

    async def explain(request: Request) -> Response:
        return await _answered(explained, await request.body(), dict(request.query_params))

    async def download(request: Request) -> Response:
        token, _, kind = request.path_params["file"].rpartition(".")
        if kind not in KINDS:
            return JSONResponse({"error": f"There are {', '.join(KINDS)}."}, 404)
        try:
            question = desk.questions.get(token)
        except LimitError as error:
            return JSONResponse({"error": str(error)}, 404)
        try:
            found = await run_in_threadpool(desk.answer, question)
        except LimitError as error:
            return JSONResponse({"error": str(error)}, 503)
        content = await run_in_threadpool(file, found, kind)
        name = f'attachment; filename="{found.stem.encode("ascii", "ignore").decode()}.{kind}"'
        return Response(content, 200, {"content-disposition": name}, KINDS[kind])

    return [
        Route("/photo", keep, methods=["POST"]),
        Route("/api/explain", explain, methods=["POST"]),
        Route("/download/{file}", download),
    ]


def file(answer: Answer, kind: str) -> bytes:
    """An answer as a file: the figure (png, svg), the arrays (npz), the manifest (json), or the
    program that computes it (py)."""
    explanation = answer.explanation
    if kind in plot.FORMATS:
        return plot.encode(explanation.plot(), kind)
    if kind == "npz":
        return explanation.to_npz()
    if kind == "json":
        return json.dumps(explanation.manifest(), indent=1).encode()
    return snippet(answer).encode()


async def _answered(work: Callable[..., dict[str, Any]], *args: Any) -> Response:
    """What ``work`` returns, or what was wrong, as JSON."""
    try:
        return JSONResponse(await run_in_threadpool(work, *args))
    except LimitError as error:
        return JSONResponse({"error": str(error)}, 503)
    except TorchFBIError as error:
        return JSONResponse({"error": str(error)}, 400)
