"""``torchfbi serve`` as it is started, and as it is stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from torchfbi.web.server import examples

COMMAND = (sys.executable, "-u", "-m", "torchfbi", "serve")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_leaves_nothing_behind(
    stop: signal.Signals, tmp_path: Path
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TORCHFBI_AUTH": "me:secret"}
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--model", "digits"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        url = ""
        for line in server.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                url = found[0]
                break
        assert httpx.get(url).status_code == 401
        with httpx.Client(base_url=url, auth=("me", "secret")) as client:
            assert "torchfbi" in client.get("/").text
            files = {"files": ("a.png", b"unread")}
            path = Path(client.post("/gradio_api/upload", files=files).json()[0])
        assert path.is_relative_to(tmp_path)
        assert path.read_bytes() == b"unread"
        server.send_signal(stop)
        server.stdout.read()
    assert server.returncode == 0
    assert not [left for left in tmp_path.iterdir() if left.name.startswith("torchfbi-")]


def test_bad_usage(run: Any) -> None:
    for auth in ("me", ":secret", "me:"):
        result = run("serve", "--auth", auth)
        assert result.code == 2
        assert "USER:PASSWORD" in result.err
    assert run("serve", "--model", "no-such-network").code == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", "--port", taken.getsockname()[1], "--model", "digits")
    assert result.code == 2
    assert "in use" in result.err


def test_without_gradio(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torchfbi.web.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run("serve")
    assert result.code == 2
    assert "pip install 'torchfbi[web]'" in result.err


def test_the_examples_are_there() -> None:
    assert next(iter(examples())) == "chelsea.png"
    assert len(examples()) == 6
