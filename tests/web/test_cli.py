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
import torch

from photos import CAT
from torchfbi.explanation.explanation import Explanation
from torchfbi.models import load
from torchfbi.web.examples import examples

ALLOWED = ["--allow-networks"] if sys.platform == "linux" else []
COMMAND = (sys.executable, "-u", "-m", "torchfbi", "serve")


@pytest.mark.parametrize(
    ("stop", "moment"),
    [(signal.SIGTERM, "before"), (signal.SIGINT, "while it explains")],
)
def test_it_says_where_it_is_and_leaves_nothing_behind(
    stop: signal.Signals, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, torchs = tmp_path / "ours", tmp_path / "torch"  # torch makes a folder as it is imported
    ours.mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(ours),
        "TORCHINDUCTOR_CACHE_DIR": str(torchs),
        "TORCHFBI_AUTH": "me:secret",
    }
    torch.save(load("digits").module.state_dict(), tmp_path / "w.pt")
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.chdir(tmp_path)
    network = ["--model", "digits", "--weights", "w.pt", "--labels", "names.txt"]
    with subprocess.Popen(
        [*COMMAND, *ALLOWED, "--port", "0", *network, "--mean", "0.1", "--std", "0.3"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert "One moment" in server.stdout.readline()
        if moment != "before":
            line = server.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert found
            assert httpx.get(found[0]).status_code == 401
            with httpx.Client(base_url=found[0], auth=("me", "secret")) as client:
                assert "torchfbi" in client.get("/").text
                config = client.get("/config").json()
                assert config["networks"] == ["digits with its own weights, labels, mean, std"]
                assert config["limits"]["network"] == (200 * 2**20 if ALLOWED else 0)
                assert client.post("/photo", content=CAT.read_bytes()).status_code == 200
                computes_the_same(client)
                with pytest.raises(httpx.TimeoutException):
                    client.post("/api/explain", content=CAT.read_bytes(), timeout=0.01)
        server.send_signal(stop)
        rest = server.stdout.read()
    assert "Traceback" not in rest
    assert server.returncode == 0
    assert list(ours.iterdir()) == []
    assert not torchs.exists() or list(torchs.iterdir()) == []


def computes_the_same(client: httpx.Client) -> None:
    """The program that the page shows, run as printed in the folder of the network's files."""
    Path("cat.png").write_bytes(CAT.read_bytes())
    asked = {"name": "cat.png", "target": "d"}
    answer = client.post("/api/explain", params=asked, content=CAT.read_bytes(), timeout=60).json()
    Path("page.npz").write_bytes(client.get(answer["files"]["npz"], timeout=60).content)
    names: dict[str, Any] = {}
    exec(compile(answer["program"], "program.py", "exec"), names)
    page, own = Explanation.load("page.npz"), names["explanation"]
    assert own.label(3) == page.label(3) == "d"
    assert own.preprocess == page.preprocess
    assert torch.allclose(own.logits, page.logits)
    assert torch.allclose(own.values, page.values, rtol=1e-3, atol=1e-5)


def test_bad_usage(run: Any) -> None:
    for auth in ("me", ":secret", "me:"):
        result = run("serve", "--auth", auth)
        assert result.code == 2
        assert "USER:PASSWORD" in result.err
    assert run("serve", "--model", "no-such-network").code == 2
    result = run("serve", "--model", "a", "--model", "b", "--labels", "names.txt")
    assert "belong to one network" in result.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", "--port", taken.getsockname()[1], "--model", "digits")
    assert result.code == 2
    assert "in use" in result.err


def test_without_its_packages(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torchfbi.web.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run("serve")
    assert result.code == 2
    assert "pip install 'torchfbi[web]'" in result.err


def test_the_examples_are_there() -> None:
    assert next(iter(examples())) == "coffee.png"
    assert len(examples()) == 6
