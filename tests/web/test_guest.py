"""Visitors' networks: each answers from a process of its own, and goes with its page."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from hostile.networks import ints, model, node, outside
from pageserver import TwoThreads, small, threads
from photos import CAT
from torchfbi.errors import TorchFBIError
from torchfbi.models.source import Source
from torchfbi.web.guest import EndedError, Guest
from torchfbi.web.limits import Limits
from torchfbi.web.views import encoded, network_view

pytestmark = pytest.mark.skipif("sys.platform != 'linux'", reason="the limits are those of Linux")


def test_a_network_is_brought_explained_and_forgotten(server: Any) -> None:
    def get(path: str, **asked: str) -> httpx.Response:
        return httpx.get(server.url + path.lstrip("/"), params=asked or None, timeout=60)

    sent = httpx.post(
        f"{server.url}network?name=small.onnx&stay=1", content=small(), timeout=60
    ).json()
    assert (sent["about"]["name"], sent["about"]["classes"]) == ("small.onnx", 3)
    assert "Assumed" in sent["about"]["assumed"][0]
    process = server.service.guests.get(sent["network"]).process

    photo = httpx.post(f"{server.url}photo?name=cat.png", content=CAT.read_bytes()).json()["photo"]
    asked = {"model": sent["network"], "target": "2"}
    answer = get(f"photo/{photo}/explanation", **asked).json()
    assert (answer["model"], answer["label"]) == ("small.onnx", "class 2")
    assert "divided by 0.229" in answer["assumed"][0]
    assert "    'small.onnx',\n" in answer["program"]
    for path in ("verdict", "flow", "comparison?method=edge", "sweep?k=1&taus=none"):
        path, _, more = path.partition("?")
        answered = get(f"photo/{photo}/{path}", **asked, **dict(httpx.QueryParams(more)))
        assert answered.status_code == 200, answered.text
    npz = get(answer["files"]["npz"])
    assert npz.headers["content-disposition"] == 'attachment; filename="cat-class-2.npz"'
    assert np.load(io.BytesIO(npz.content))["values"].shape == (1, 3, 32, 32)
    assert get("classes", model=sent["network"]).json() == ["class 0", "class 1", "class 2"]
    refused = get(f"photo/{photo}/explanation", **{**asked, "target": "3"})
    assert refused.status_code == 400
    assert "no class" in refused.json()["error"]

    address = f"{server.url}network/{sent['network']}"
    assert httpx.post(f"{address}/stay").status_code == 204
    assert httpx.post(f"{address}/forget").status_code == 204
    process.join(10)
    assert process.exitcode
    again = get(f"photo/{photo}/explanation", **asked)
    assert again.status_code == 404
    assert "network: drop it again" in again.json()["error"]


def test_what_is_said_about_its_inputs_holds(server: Any) -> None:
    """Of a network that weighs the mean of each channel, for a photo blue at its sides."""
    weights = np.array([[0.5, -0.5], [0.25, 0.5], [-1.0, 0.75]], np.float32)
    nodes = [
        node("GlobalAveragePool", "x", "a"),
        node("Flatten", "a", "b"),
        node("MatMul", "b w", "y"),
    ]
    content = model(nodes, {"w": weights}, (1, 3, 8, 8)).SerializeToString()

    def bring(**said: str) -> httpx.Response:
        asked = {"name": "means.onnx", **said}
        return httpx.post(f"{server.url}network", params=asked, content=content, timeout=60)

    for said, message in (
        ({"mean": "0.5,x"}, "mean is 'x': write a number"),
        ({"std": "1 " * 101}, "std has 202 characters"),
        ({"mean": "0.5 0.5"}, "mean and std have one number a channel"),
    ):
        refused = bring(**said)
        assert refused.status_code == 400
        assert message in refused.json()["error"]
    assert not len(server.service.guests)

    sides, middle = np.array([51, 102, 255]), np.array([153, 204, 0])
    pixels = np.tile(sides.astype(np.uint8), (64, 128, 1))
    pixels[:, 32:96] = middle
    encoded_photo = io.BytesIO()
    Image.fromarray(pixels).save(encoded_photo, "png")
    photo = httpx.post(f"{server.url}photo?name=a.png", content=encoded_photo.getvalue()).json()
    sent = bring(mean="0.125, 0.25 0.5", std="0.5", bgr="1", stretch="1").json()
    assert sent["about"]["assumed"] == []
    answer = httpx.get(
        f"{server.url}photo/{photo['photo']}/explanation",
        params={"model": sent["network"], "target": "1"},
        timeout=60,
    ).json()

    # Squeezed, both halves count: colours are (0.4, 0.6, 0.5), inputs, blue first, (0.75, 0.7,
    # -0.2), logits (0.375 + 0.175 + 0.2, -0.375 + 0.35 - 0.15) = (0.75, -0.175).
    probabilities = {row["class"]: row["probability"] for row in answer["top"]}
    assert probabilities[1] == pytest.approx(1 / (1 + np.exp(0.75 + 0.175)), abs=2e-3)
    assert answer["assumed"] == []
    assert answer["region"] == [0, 0, 128, 64]
    assert (
        "    torchfbi.load('means.onnx').with_preprocess("
        "mean=[0.125, 0.25, 0.5], std=[0.5], channels='BGR', fit='stretch'),\n" in answer["program"]
    )
    manifest = httpx.get(server.url + answer["files"]["json"].lstrip("/"), timeout=60).json()
    taken = manifest["preprocess"]
    assert taken["mean"] == [0.125, 0.25, 0.5]
    assert (taken["channels"], taken["fit"], manifest["assumed"]) == ("BGR", "stretch", [])
    httpx.post(f"{server.url}network/{sent['network']}/forget")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt2", b"PK\x03\x04", "only ONNX files"),
        ("a.onnx", b"PK\x03\x04", "only ONNX files"),
    ],
)
def test_what_is_no_such_file_is_said(server: Any, name: str, content: bytes, message: str) -> None:
    answer = httpx.post(f"{server.url}network?name={name}", content=content, timeout=60)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert not len(server.service.guests)


@pytest.fixture
def made() -> Iterator[Any]:
    """Makes guests, which are closed afterwards."""
    guests: list[Guest] = []

    def make(content: bytes, **limits: Any) -> Guest:
        guests.append(Guest(content, Source("a.onnx"), Limits(**limits)))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()


def described(guest: Guest) -> bytes:
    return guest.ask(lambda: None, "describe", "", encoded(network_view))


def test_it_computes_on_all_threads(made: Any) -> None:
    """Though its process is a fork: of one that has computed nothing."""
    view = encoded(partial(threads, TwoThreads()))
    answer = made(small()).ask(lambda: None, "describe", "", view)
    assert json.loads(answer) == {"threads": 2}


def test_hostile_networks_harm_nobody(made: Any, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(bytes(10**6))
    leaking = made(outside(tmp_path, str(tmp_path / "w")).read_bytes())
    with pytest.raises(TorchFBIError, match="did not come with it"):
        described(leaking)

    # Every tensor is small enough for its shape to be believed, and all are too much.
    tiled = [node("Tile", "x n", "a"), node("Relu", "a", "b"), node("GlobalAveragePool", "b", "y")]
    greedy = made(model(tiled, {"n": ints(1, 1, 2000, 2000)}).SerializeToString(), memory=2**30)
    with pytest.raises((EndedError, TorchFBIError), match=r"memory|GiB"):
        described(greedy)

    endless = made(small(), seconds=0.01)
    with pytest.raises(EndedError, match="no answer within"):
        described(endless)
