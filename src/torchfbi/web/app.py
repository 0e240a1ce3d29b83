"""The addresses of the server: what is asked for under each, and how errors are answered.

Nothing that is asked for names a file or an address: there is no code here that opens one.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import traceback
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from torchfbi.errors import InputError, LimitError, TorchFBIError
from torchfbi.models.images import Photo
from torchfbi.web import earlier, query, views
from torchfbi.web.configuration import configuration
from torchfbi.web.desk import Question
from torchfbi.web.guard import NETWORK
from torchfbi.web.service import Service
from torchfbi.web.store import ForgottenError, Store

STATIC = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
SHARED = ("style.css", "parts.js")
"""What the page that ``torchfbi export`` writes has as well."""

KINDS = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "npz": "application/octet-stream",
    "json": "application/json",
    "py": "text/x-python; charset=utf-8",
}

Handler = Callable[[Request], Awaitable[Response]]


def application(service: Service, examples: dict[str, Photo]) -> Starlette:
    """Everything behind the guard, as an ASGI application.

    Args:
        service: answers the questions.
        examples: photos to try, by name.
    """
    app = _Addresses(service, examples)
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/", app.page),
        ("GET", "/static/{name}", app.page),
        ("GET", "/config", app.config),
        ("GET", "/classes", app.classes),
        ("POST", "/photo", app.photo),
        ("POST", "/example", app.example),
        ("POST", NETWORK, app.network),
        ("POST", "/photo/{token}/stay", _staying(service.photos)),
        ("POST", "/photo/{token}/forget", _forgetting(service.photos)),
        ("POST", NETWORK + "/{token}/stay", _staying(service.guests)),
        ("POST", NETWORK + "/{token}/forget", _forgetting(service.guests)),
        ("GET", "/photo/{token}/explanation", app.explanation),
        ("GET", "/photo/{token}/explanation.{kind}", app.file),
        ("GET", "/photo/{token}/verdict", app.verdict),
        ("GET", "/photo/{token}/flow", app.flow),
        ("GET", "/photo/{token}/comparison", app.comparison),
        ("GET", "/photo/{token}/sweep", app.sweep),
        ("POST", "/api/explain", app.explain),
        ("GET", "/gradio_api/app_id", app.app_id),
        ("POST", "/gradio_api/call/explain", app.call),
        ("GET", "/gradio_api/call/explain/{event}", app.called),
    ]
    routes = [Route(path, _answered(handler), methods=[method]) for method, path, handler in table]
    return Starlette(routes=routes, exception_handlers={404: _nothing, 405: _nothing})


class _Addresses:
    """A method for each address."""

    def __init__(self, service: Service, examples: dict[str, Photo]) -> None:
        self._service, self._examples = service, examples
        self._previews = {name: views.photo_view("", photo) for name, photo in examples.items()}
        self._config = views.encode(configuration(service, examples))
        self._static = _static()

    async def page(self, request: Request) -> Response:
        """The page, and what it consists of."""
        name = request.path_params.get("name", "index.html")
        if name not in self._static:
            return _error(404, "There is nothing here.")
        kind = STATIC[name.rpartition(".")[2]]
        return Response(self._static[name], media_type=f"{kind}; charset=utf-8")

    async def config(self, request: Request) -> Response:
        """What there is to choose from."""
        return _json(self._config)

    async def classes(self, request: Request) -> Response:
        """The names of a network's classes."""
        asked = query.parts(request.query_params, "model")
        model = asked.get("model") or next(iter(self._service.networks))
        return _json(await self._service.describe(model, views.encoded(views.labels_view)))

    async def photo(self, request: Request) -> Response:
        """A photo is sent, as the body."""
        asked = query.parts(request.query_params, "name", "stay")
        name, stay, view = (
            asked.get("name") or "photo",
            "stay" in asked,
            views.encoded(views.photo_view),
        )
        return _json(await self._service.keep(await request.body(), name, view, stay=stay))

    async def example(self, request: Request) -> Response:
        """One of the examples is chosen."""
        asked = query.parts(request.query_params, "name", "stay")
        name = asked.get("name", "")
        if name not in self._examples:
            raise InputError(f"There is no such example: choose {', '.join(self._examples)}.")
        token = self._service.photos.put(self._examples[name], "stay" in asked)
        return _json(views.encode({**self._previews[name], "photo": token}))

    async def network(self, request: Request) -> Response:
        """A visitor brings a network, as the body."""
        asked = query.parts(request.query_params, "name", "stay", "mean", "std", "bgr", "stretch")
        name, said = asked.get("name") or "network.onnx", query.preprocessing(asked)
        view, content = views.encoded(views.network_view), await request.body()
        token, about = await self._service.welcome(content, name, said, view, stay="stay" in asked)
        return _json(b'{"network": %b, "about": %b}' % (views.encode(token), about))

    async def explanation(self, request: Request) -> Response:
        """An explanation of a photo."""
        view = views.encoded(views.explanation_view)
        return _json(await self._service.answer(self._question(request)[0], view))

    async def file(self, request: Request) -> Response:
        """An explanation as a file."""
        kind = request.path_params["kind"]
        if kind not in KINDS:
            return _error(404, f"There are {', '.join(KINDS)}.")

        question, more = self._question(request, "verify")
        verify, view = bool(more.get("verify")), functools.partial(views.named_file, kind=kind)
        stem, _, content = (await self._service.answer(question, view, verify=verify)).partition(
            b"\n"
        )
        name = f'attachment; filename="{stem.decode("ascii", "ignore")}.{kind}"'
        return Response(content, headers={"content-disposition": name}, media_type=KINDS[kind])

    async def verdict(self, request: Request) -> Response:
        """Whether an explanation holds."""
        view = views.encoded(views.verdict_view)
        return _json(await self._service.answer(self._question(request)[0], view, verify=True))

    async def flow(self, request: Request) -> Response:
        """The way from the class to the pixels, layer by layer."""
        view = views.encoded(views.flow_view)
        return _json(await self._service.answer(self._question(request)[0], view, record=True))

    async def comparison(self, request: Request) -> Response:
        """What another method says."""
        question, more = self._question(request, "method")
        view = views.encoded(views.comparison_view)
        return _json(await self._service.compare(question, more.get("method", ""), view))

    async def sweep(self, request: Request) -> Response:
        """A row of the grid of k and tau."""
        question, more = self._question(request, "k", "taus")
        k, taus = query.number("k", more.get("k", "")), query.taus(more.get("taus", ""))
        view = views.encoded(views.sweep_view)
        return _json(await self._service.sweep(question, k, taus, view))

    async def explain(self, request: Request) -> Response:
        """A photo in, as the body, and an explanation out."""
        asked = query.parts(request.query_params, "name", *query.PARTS)
        query.settings(asked)  # refused before a photo is decoded for nothing
        name = asked.get("name") or "photo"
        token = await self._service.keep(await request.body(), name, lambda token, _: token)
        question = query.question(self._service, token, asked)
        return _json(await self._service.answer(question, views.encoded(views.explanation_view)))

    async def app_id(self, request: Request) -> Response:
        """By which programs of before know that somebody is here."""
        return _json(views.encode({"app_id": "torchfbi"}))

    async def call(self, request: Request) -> Response:
        """The first of two steps; see ``earlier``."""
        return _json(views.encode({"event_id": earlier.event_of(await request.body())}))

    async def called(self, request: Request) -> Response:
        """The second one."""
        event = request.path_params["event"]
        said = await earlier.answer(self._service, event, views.encoded(views.explanation_view))
        return Response(said + b"\n\n", media_type="text/event-stream")

    def _question(self, request: Request, *more: str) -> tuple[Question, dict[str, str]]:
        asked = query.parts(request.query_params, *query.PARTS, *more)
        return query.question(self._service, request.path_params["token"], asked), asked


def _staying(store: Store[Any]) -> Handler:
    """The page of a photo or a network is still open."""

    async def stay(request: Request) -> Response:
        store.stay(request.path_params["token"])
        return Response(status_code=204)

    return stay


def _forgetting(store: Store[Any]) -> Handler:
    """The page of a photo or a network was closed, or has another one."""

    async def forget(request: Request) -> Response:
        store.drop(request.path_params["token"])
        return Response(status_code=204)

    return forget


def _answered(handler: Handler) -> Handler:
    """A handler whose errors are answers, and which ends when nobody waits for it any longer."""

    async def answer(request: Request) -> Response:
        try:
            if request.method == "POST":
                await request.body()  # all of it is here: the guard has waited for it
            answering = asyncio.ensure_future(handler(request))
            gone = asyncio.ensure_future(_gone(request))
            try:
                await asyncio.wait([answering, gone], return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    return _error(400, "The connection was closed.")
                return answering.result()
            finally:
                answering.cancel()
                gone.cancel()
                del answering, gone  # the error of one would hold it in a circle, photo and all
        except ForgottenError as error:
            return _error(404, str(error))
        except LimitError as error:
            return _error(503, str(error))
        except TorchFBIError as error:
            return _error(400, str(error))
        except Exception:  # a fault of ours or of a network's: the owner reads it, not the visitor
            traceback.print_exc(file=sys.stderr)
            return _error(500, "That went wrong; what happened is in the server's own log.")

    return answer


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _nothing(request: Request, error: Exception) -> Response:
    return _error(404, "There is nothing here.")


def _json(content: bytes, status: int = 200) -> Response:
    return Response(content, status, media_type="application/json")


def _error(status: int, text: str) -> Response:
    return _json(views.encode({"error": text}), status)


def _static() -> dict[str, bytes]:
    """The parts of the page by name; read once, so that no request reads a file."""
    own, shared = files("torchfbi.web") / "static", files("torchfbi.export") / "page"
    found = {part.name: part.read_bytes() for part in own.iterdir()}
    return {**found, **{name: (shared / name).read_bytes() for name in SHARED}}
