"""The server for programs: plain HTTP, ``gradio_client``, files, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image

import torchfbi
from photos import CAT, COFFEE
from test_docs import SERVED, blocks
from torchfbi.errors import SettingsError
from torchfbi.explanation import Explanation
from torchfbi.settings import PRESETS, Settings
from torchfbi.web import views
from torchfbi.web.desk import Answer, Question
from torchfbi.web.knobs import Knobs, changes, helps


def post(server: Any, photo: bytes, **asked: str) -> httpx.Response:
    return httpx.post(f"{server.url}api/explain", params=asked, content=photo, timeout=60)


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_photo_in_an_explanation_out(server: Any) -> None:
    answer = post(server, CAT.read_bytes(), name="cat.png", target="Egyptian cat").json()
    expected = torchfbi.explain(server.desk.model("efficientnet-lite0"), CAT, "Egyptian cat")
    assert answer["target"] == 285
    assert answer["photo"] == "cat.png"
    assert answer["title"] == expected.title()
    assert [row["class"] for row in answer["top"]] == [row[0] for row in expected.top()]
    assert answer["density"] == expected.density.item()
    assert answer["settings"] == Settings.contrast().to_dict()


def test_settings_by_name(server: Any) -> None:
    answer = post(
        server, CAT.read_bytes(), preset="paper", settings='{"tau": 0.2, "k": 0.3}'
    ).json()
    assert answer["settings"] == Settings.paper(tau=0.2, k=0.3).to_dict()
    assert answer["density"] > 0


def test_the_files_of_an_answer(server: Any, tmp_path: Path) -> None:
    answer = post(server, COFFEE.read_bytes(), name="coffee.png", settings='{"k": 0.5}').json()
    files = {
        kind: httpx.get(server.url + path[1:], timeout=60) for kind, path in answer["files"].items()
    }
    assert set(files) == {"png", "svg", "npz", "json", "py"}
    for kind, file in files.items():
        assert file.status_code == 200
        assert file.headers["content-disposition"] == (
            f'attachment; filename="coffee-espresso.{kind}"'
        )
    assert Image.open(io.BytesIO(files["png"].content)).width > 1000
    assert b"<svg" in files["svg"].content
    (tmp_path / "coffee.npz").write_bytes(files["npz"].content)
    loaded = Explanation.load(tmp_path / "coffee.npz")
    assert files["json"].json() == json.loads(json.dumps(loaded.manifest()))
    assert loaded.settings == Settings.contrast(k=0.5)
    assert np.array_equal(loaded.photos[0].pixels, torchfbi.Photo.read(COFFEE).pixels)


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("paper", {"tau": 0.2}),
        (
            "plain",
            {"pooling": "proportional", "threshold": "quantile:0.9", "image_threshold": "mass:0.9"},
        ),
        ("contrast", {"k": 0.25, "layers": ["_blocks.1*", "_swish*"], "threshold": None}),
    ],
)
def test_the_snippet_computes_the_same_values(
    server: Any,
    preset: str,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    name = 'it\'s a "cat" #1.png'  # Python must not stumble over it
    Path(name).write_bytes(CAT.read_bytes())
    asked = {"preset": preset, "settings": json.dumps(settings), "name": name, "target": "lynx"}
    answer = post(server, Path(name).read_bytes(), **asked).json()
    program = httpx.get(server.url + answer["files"]["py"][1:]).text
    names: dict[str, Any] = {}
    exec(compile(program, "snippet.py", "exec"), names)
    Path("page.npz").write_bytes(httpx.get(server.url + answer["files"]["npz"][1:]).content)
    page, own = Explanation.load("page.npz"), names["explanation"]
    assert own.settings == page.settings
    assert torch.equal(own.target, page.target)
    assert torch.equal(own.values, page.values)
    (picture,) = set(Path.cwd().glob("*.png")) - {Path(name).absolute()}
    assert picture.read_bytes() == httpx.get(server.url + answer["files"]["png"][1:]).content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, this is no picture", "no picture"),
        (CAT.read_bytes()[:20_000], "damaged or cut short"),
        (png(4000, 2600, "1"), "10 million pixels, this server takes up to 10 million"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "vector drawing"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    ],
)
def test_bad_files_are_refused_with_a_reason(server: Any, content: bytes, message: str) -> None:
    for path in ("photo", "api/explain"):
        answer = httpx.post(server.url + path, params={"name": "x.png"}, content=content)
        assert answer.status_code == 400
        assert message in answer.json()["error"]
        assert "x.png" in answer.json()["error"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"target": "Egyptien cat"}, "Did you mean 'Egyptian cat'"),
        ({"target": "1000"}, "no class"),
        ({"model": "torchvision:resnet18"}, "This server has no model"),
        ({"model": "/etc/evil.py:make"}, "This server has no model"),
        ({"preset": "best"}, "preset 'best' is unknown"),
        ({"settings": '{"k": 2}'}, "k is 2"),
        ({"settings": '{"k": '}, "no JSON"),
        ({"settings": "[1]"}, "are an object"),
        ({"settings": '{"mode": 1}'}, "unknown setting mode"),
        ({"colour": "red"}, "unknown parameter colour"),
    ],
)
def test_bad_questions_are_refused_with_a_reason(
    server: Any, asked: dict[str, str], message: str
) -> None:
    answer = post(server, CAT.read_bytes(), **asked)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_large_uploads_are_refused(server: Any) -> None:
    for path in ("photo", "api/explain", "gradio_api/upload"):
        answer = httpx.post(server.url + path, content=b"x" * (2**20 + 1))
        assert answer.status_code == 413
        assert "up to 1 MiB" in answer.json()["error"]


def test_a_token_that_nobody_has(server: Any) -> None:
    answer = httpx.get(f"{server.url}download/AAAAAAAAAAAAAAAAAAAAAA.png")
    assert answer.status_code == 404
    assert "no longer keeps" in answer.json()["error"]
    assert httpx.get(f"{server.url}download/x.exe").status_code == 404


def test_the_examples_of_the_documentation(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.open(CAT).save("cat.jpg", quality=95)
    names: dict[str, object] = {}
    for block in blocks(SERVED):
        if block.kind == "python":
            text = block.text.replace("http://127.0.0.1:7860", server.url.rstrip("/"))
            exec(compile("\n" * block.line + text, str(SERVED), "exec"), names)
    assert capsys.readouterr().out.startswith("Egyptian cat (")


def test_the_same_through_gradio_client(server: Any) -> None:
    client = Client(server.url, verbose=False)
    answer = client.predict(
        handle_file(str(CAT)), "Egyptian cat", settings={"k": 0.5}, api_name="/explain"
    )
    own = post(server, CAT.read_bytes(), name="chelsea.png", target="285", settings='{"k": 0.5}')
    assert {**answer, "files": ""} == {**own.json(), "files": ""}
    assert httpx.get(server.url + answer["files"]["npz"][1:]).status_code == 200
    assert not [path for path in server.folder.rglob("*") if path.is_file()]  # read and deleted
    with pytest.raises(Exception, match="Did you mean"):
        client.predict(handle_file(str(CAT)), "Egyptien cat", api_name="/explain")
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/explain"}


@pytest.mark.parametrize("kind", ["file", "plain", "url"])
def test_the_api_reads_no_file_but_uploads(server: Any, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(CAT.read_bytes())
    photo = {
        "file": {"path": str(secret), "meta": {"_type": "gradio.FileData"}},
        "plain": {"path": str(secret)},
        "url": {
            "path": "x.png",
            "url": f"{server.url}theme.css",
            "meta": {"_type": "gradio.FileData"},
        },
    }[kind]
    started = httpx.post(f"{server.url}gradio_api/call/explain", json={"data": [photo]}).json()
    events = httpx.get(f"{server.url}gradio_api/call/explain/{started['event_id']}").text
    assert "event: error" in events
    assert "title" not in events or "That did not work" in events
    assert secret.exists()


def test_no_file_can_be_fetched(server: Any) -> None:
    uploaded = httpx.post(
        f"{server.url}gradio_api/upload", files={"files": ("cat.png", CAT.read_bytes())}
    ).json()[0]
    for path in (uploaded, "/etc/passwd", str(CAT), str(Path(views.__file__))):
        for form in ("gradio_api/file=", "gradio_api/file/", "file="):
            assert httpx.get(f"{server.url}{form}{path}").status_code == 404
    Path(uploaded).unlink()


def test_hosts_are_checked_on_the_wire(server: Any) -> None:
    for host in ("evil.example", "localhost.evil.example:7860"):
        assert httpx.get(server.url, headers={"host": host}).status_code == 400


def test_every_setting_has_a_knob_with_a_help() -> None:
    said = helps()
    for preset in PRESETS:
        settings = Settings.from_preset(preset)
        assert set(said) == set(settings.to_dict())
        assert all(text.endswith(".") and 15 < len(text) < 200 for text in said.values())
        shown = Knobs.values(settings)
        assert [knob.value for knob in Knobs(settings).controls] == shown
        assert Knobs.settings(preset, shown) == settings
        assert changes(settings) == {}


def test_knobs_without_a_number() -> None:
    shown = Knobs.values(Settings.contrast())
    place = shown.index("mean")
    with pytest.raises(SettingsError, match="mean needs a number"):
        Knobs.settings("contrast", [*shown[: place + 1], None, *shown[place + 2 :]])
    none = Knobs.settings("contrast", [*shown[:place], "none", None, *shown[place + 2 :]])
    assert none == Settings.contrast(threshold=None)


def test_names_are_escaped(server: Any) -> None:
    photo = torchfbi.Photo(torchfbi.Photo.read(CAT).pixels, "<img src=x onerror=alert(1)>.png")
    explanation = torchfbi.explain(server.desk.model("efficientnet-lite0"), photo)
    labels = ("</button><script>", *explanation.labels[1:])  # type: ignore[misc]
    evil = torchfbi.Explanation(
        **{**vars(explanation), "labels": labels, "target": torch.tensor([0])}
    )
    question = Question(photo, "efficientnet-lite0", 0, explanation.settings)
    answer = Answer.of(question, evil)
    page = (
        views.explanation_view(answer)
        + views.classes_view(answer)
        + views.download_view(answer, "token")
    )
    assert "<script" not in page
    assert "onerror=alert(1)>" not in page
    assert "&lt;script" in page
    assert all(sign not in answer.stem for sign in "<>/ ()")


def test_an_empty_support_is_announced(server: Any) -> None:
    settings = Settings.paper()  # its tau is not for this network
    question = Question(torchfbi.Photo.read(CAT), "efficientnet-lite0", None, settings)
    answer = Answer.of(question, server.desk.explain(question))
    assert "Empty support" in views.explanation_view(answer)
