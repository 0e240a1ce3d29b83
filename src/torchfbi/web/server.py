"""The server: page, plain HTTP and API behind one guard."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from torchfbi.allocator import share_one_heap
from torchfbi.plot.style import DARK, LIGHT
from torchfbi.web.desk import Desk
from torchfbi.web.examples import examples
from torchfbi.web.guard import Guard
from torchfbi.web.limits import Limits
from torchfbi.web.page import STATIC, build
from torchfbi.web.routes import routes

QUEUE = 32
"""How many events of the page may wait; what computes waits in the desk's own line."""

CONNECTIONS = 200


def application(
    desk: Desk, folder: Path, hosts: Sequence[str] = (), auth: str | None = None
) -> ASGIApp:
    """Everything behind the guard, as an ASGI application.

    To be called where an event loop runs: without one Gradio makes some that it never closes.

    Args:
        desk: answers the questions.
        folder: where uploads lie, as ``surroundings`` gives it.
        hosts: names beside those of the loopback under which the server may be asked.
        auth: ``user:password`` that a browser has to give, or None.
    """
    blocks = build(desk, examples())
    blocks.queue(max_size=QUEUE, default_concurrency_limit=None, api_open=False)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, routes=routes(desk))
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(),
        css_paths=STATIC / "page.css",
    )
    return Guard(app, hosts, desk.limits, auth, folder)


def _theme() -> gr.themes.Base:
    """The colours of our figures, and fonts of the system: none is loaded."""
    fonts = ["system-ui", "sans-serif"]
    base = gr.themes.Base(
        primary_hue="orange", neutral_hue="zinc", font=fonts, font_mono=["monospace"]
    )
    colours: dict[str, str] = {}
    for name in (
        "color_accent",
        "slider_color",
        "button_primary_background_fill",
        "button_primary_background_fill_hover",
        "checkbox_background_color_selected",
        "checkbox_border_color_selected",
        "input_border_color_focus",
    ):
        colours[name] = LIGHT.accent
        colours[f"{name}_dark"] = DARK.accent
    colours["button_primary_text_color_dark"] = DARK.background
    # Gradio has no dark variant of the accent itself; page.css sets it.
    del colours["color_accent_dark"]
    return base.set(**colours)


@contextlib.contextmanager
def surroundings() -> Iterator[Path]:
    """What Gradio reads from the environment alone, for as long as the server runs.

    A folder for what ``gradio_client`` uploads, which is gone afterwards (the page's own photos
    never get there); nothing sent home; and no statistics of events, which would be worked out
    anew, over all of them, at each one.

    Returns:
        The folder.
    """
    with tempfile.TemporaryDirectory(prefix="torchfbi-") as folder:
        wanted = {
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_ANALYTICS_MAX_EVENTS": "1",
            "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),
        }
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def serve(
    models: Sequence[str],
    host: str = "127.0.0.1",
    port: int = 7860,
    *,
    hosts: Sequence[str] = (),
    auth: str | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the page until the process is asked to stop.

    Args:
        models: the networks to choose from; the first is loaded and captured before the start.
        host: the address to listen at.
        port: the port; 0 for a free one.
        hosts: further names under which the server may be asked for, such as a proxy's.
        auth: ``user:password``, or None.
        limits: what a visitor may ask for.
        ready: called with the page's address as soon as it can be opened.

    Raises:
        ModelError, CaptureError: the first network cannot be loaded or explained.
        OSError: the port is taken.
    """
    share_one_heap()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    name = f"[{host}]" if ":" in host else host
    desk = Desk(models, limits or Limits())
    with socket.create_server((host, port), family=family) as listening, surroundings() as folder:
        desk.warm()
        address = f"http://{name}:{listening.getsockname()[1]}/"

        async def run() -> None:
            config = uvicorn.Config(
                application(desk, folder, [name, *hosts], auth),
                log_level="warning",
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=2,
            )
            ready(address)
            await uvicorn.Server(config).serve([listening])

        # uvicorn stops in good order and then raises the signal anew: here it must not kill, for
        # the folder is to be removed.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(run())
        finally:
            signal.signal(signal.SIGTERM, before)
            desk.close()
