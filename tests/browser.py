"""A real browser for the tests of pages: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# No sandbox: it does not start as root, as which containers run.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--use-fake-device-for-media-stream",  # a camera that sees a test picture
    "--use-fake-ui-for-media-stream",
)


EVIL = (
    '<script>window.ran = 1; fetch("http://other.example")<\x2fscript>',
    '"><img src=x onerror="window.ran = 2">',
    "' onmouseover='window.ran = 3' x='",
    "</title></style></textarea><svg onload=window.ran=4>",
    "{{ 7 * 7 }}{% raw %}${window.ran = 5}",
    "javascript:window.ran=6",
    "\u202egnp.exe\u2028\ud800",
    "<!-- --!><base href=http://other.example/>",
    "&lt;img src=x onerror=window.ran=7&gt;",
    "<style>@import 'http://other.example/a.css';</style>",
)
"""Names of classes and files that would run if they were anything but text."""


# Of a module, not of the session: while it lives, Playwright keeps an event loop running in this
# thread, which the asyncio.run of other tests would trip over.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium; where it is not installed its tests are skipped, but fail in CI."""
    if _chromium() is None:
        missing = "Chromium is not installed: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with chromium() as started:
        yield started


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_chromium(), args=list(_ARGUMENTS))
        yield started
        started.close()


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def open_page(browser: Browser, url: str, **options: Any) -> tuple[Page, list[str]]:
    """A page in a profile of its own, and a list that grows with whatever goes wrong in it.

    What is wrong: a request to another host (which is blocked), an exception, an error in the
    console.

    Args:
        url: where to go; its host is the only one that may be asked for anything.
        options: as for Playwright's ``Browser.new_context``: viewport, color_scheme, ...
    """
    context = browser.new_context(**options)
    page, wrong = context.new_page(), list[str]()
    own = "/".join(url.split("/")[:3])

    def guard(route: Any) -> None:
        if route.request.url.startswith((f"{own}/", "data:", "blob:")):
            route.continue_()
        else:
            wrong.append(f"request to {route.request.url}")
            route.abort()

    context.route("**/*", guard)
    page.on("pageerror", lambda error: wrong.append(f"exception: {error}"))
    page.on(
        "console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else 0
    )
    page.goto(url)
    return page, wrong


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a folder served by ``python -m http.server``."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split(" port ")[1].split()[0]
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
