"""The server for programs: plain HTTP, files, and what is refused."""

from __future__ import annotations

import gc
import io
import json
import re
import time
import weakref
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

import torchfbi
from photos import CAT, COFFEE
from test_docs import SERVED, blocks
from torchfbi.explanation.explanation import Explanation
from torchfbi.method.settings import PRESETS, Settings
from torchfbi.models.source import Source
from torchfbi.web import views
from torchfbi.web.configuration import controls, helps
from torchfbi.web.desk import Answer, Question
from torchfbi.web.query import changes

pytestmark = pytest.mark.usefixtures("shared_networks")


def post(server: Any, photo: bytes, **asked: str) -> httpx.Response:
    return httpx.post(f"{server.url}api/explain", params=asked, content=photo, timeout=60)


def get(server: Any, path: str, **asked: str) -> httpx.Response:
    return httpx.get(server.url + path.lstrip("/"), params=asked or None, timeout=600)


def png(width: int, height: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def kept(server: Any) -> str:
    """The address of a photo that the server keeps."""
    sent = httpx.post(f"{server.url}photo?name=cat.png", content=CAT.read_bytes()).json()
    assert (sent["name"], sent["width"], sent["height"]) == ("cat.png", 451, 300)
    return f"photo/{sent['photo']}"


def test_a_photo_in_an_explanation_out(server: Any, kept: str) -> None:
    answer = post(server, CAT.read_bytes(), name="cat.png", target="Egyptian cat").json()
    expected = torchfbi.explain("efficientnet-lite0", CAT, "Egyptian cat")
    assert answer["target"] == 285
    assert answer["photo"] == "cat.png"
    assert answer["title"] == expected.title()
    assert [row["class"] for row in answer["top"]] == [row[0] for row in expected.top()]
    assert answer["density"] == pytest.approx(expected.density.item(), rel=1e-3)
    assert answer["settings"] == Settings.contrast().to_dict()
    assert answer["notes"] == []
    again = get(server, f"{kept}/explanation", target="285").json()
    assert {**again, "files": ""} == {**answer, "files": ""}


def test_settings_by_name(server: Any) -> None:
    answer = post(
        server, CAT.read_bytes(), preset="paper", settings='{"tau": 0.2, "k": 0.3}'
    ).json()
    assert answer["settings"] == Settings.paper(tau=0.2, k=0.3).to_dict()
    assert answer["density"] > 0


def test_a_threshold_that_nothing_exceeds_is_said_or_fitted(server: Any, kept: str) -> None:
    """The published tau is for another network."""
    empty = get(server, f"{kept}/explanation", preset="paper").json()
    assert empty["density"] == 0
    (note,) = empty["notes"]
    assert note.startswith("Empty support: nothing exceeds tau = 10 here; tau = ")
    fitted = get(server, f"{kept}/explanation", preset="paper", fit="1").json()
    assert fitted["density"] > 0
    (note,) = fitted["notes"]
    tau = fitted["settings"]["tau"]
    assert note.startswith("Nothing exceeds τ = 10 in this network")
    assert f"τ = {tau:g} was taken" in note
    same = get(server, f"{kept}/explanation?{fitted['question']}").json()
    assert same["picture"] == fitted["picture"]
    other = get(server, f"{kept}/comparison", method="fbi-paper").json()
    assert other["support"] > 0
    assert "τ =" in other["note"]


def test_a_class_that_is_not_there_is_said(server: Any, kept: str) -> None:
    note = get(server, f"{kept}/explanation", target="espresso").json()["notes"][-1]
    assert note.startswith("The network does not see this class here (0.0%)")


def test_the_files_of_an_answer(server: Any, tmp_path: Path) -> None:
    answer = post(server, COFFEE.read_bytes(), name="coffee.png", settings='{"k": 0.5}').json()
    files = {kind: get(server, path) for kind, path in answer["files"].items()}
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
    ("preset", "settings"), [("paper", {"tau": 0.2}), ("contrast", {"k": 0.25, "gamma": 1.0})]
)
def test_the_program_computes_the_same_values(
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
    program = get(server, answer["files"]["py"]).text
    assert program == answer["program"]
    names: dict[str, Any] = {}
    exec(compile(program, "program.py", "exec"), names)
    Path("page.npz").write_bytes(get(server, answer["files"]["npz"]).content)
    page, own = Explanation.load("page.npz"), names["explanation"]
    assert own.settings == page.settings
    assert torch.equal(own.target, page.target)
    assert torch.allclose(own.values, page.values, rtol=1e-3, atol=1e-5)
    assert (tmp_path / f"{answer['stem']}.png").is_file()


def test_the_verdict(server: Any, kept: str, tmp_path: Path) -> None:
    asked = {"model": "digits", "target": "6"}  # whose sixty forward passes take no time
    said = get(server, f"{kept}/verdict", **asked).json()
    (expected,) = torchfbi.explain("digits", CAT, 6).verify()
    assert (said["ruling"], said["sentence"]) == (expected.ruling, expected.sentence)
    assert said["gist"].lower() in said["sentence"].lower()
    assert expected.sufficient is not None
    height, width = said["size"]
    inside = np.zeros((height, width + 1), bool)  # to the right of an odd number of lines
    for x, top, bottom in re.findall(r"M(\d+) (\d+)V(\d+)", said["outlines"]["sufficient"]):
        inside[int(top) : int(bottom), int(x) :] ^= True
    assert np.array_equal(inside[:, :-1], expected.sufficient.mask.numpy())
    file = get(server, f"{kept}/explanation.npz", verify="1", **asked).content
    (tmp_path / "cat.npz").write_bytes(file)
    (stored,) = Explanation.load(tmp_path / "cat.npz").verdicts
    assert stored.sentence == expected.sentence


def test_flow_and_sweep(server: Any, kept: str) -> None:
    flow = get(server, f"{kept}/flow").json()
    assert len(flow["layers"]) > 30
    assert flow["layers"][-1]["name"] == "image"
    assert len(flow["layers"][0]["strongest"]) == 8
    row = get(server, f"{kept}/sweep", k="0.2", taus="none, 0.02 3", model="digits").json()
    assert [cell["tau"] for cell in row["cells"]] == ["no threshold", "τ = 0.02", "τ = 3"]
    fitting = get(server, f"{kept}/sweep", k="1", model="digits").json()
    assert fitting["taus"].startswith("none, ")
    assert all(cell["density"] > 0 for cell in fitting["cells"])
    assert get(server, f"{kept}/comparison", method="edge").json()["name"] == "edge"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, this is no picture", "no picture"),
        (CAT.read_bytes()[:20_000], "damaged or cut short"),
        (png(4000, 2600, "1"), "10 million pixels, this server takes up to 10 million"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "vector drawing"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"/etc/passwd", "no picture"),
        (b'{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}', "no picture"),
        (b"http://127.0.0.1:1/cat.png", "no picture"),
    ],
)
def test_bad_files_are_refused_with_a_reason(server: Any, content: bytes, message: str) -> None:
    for path in ("photo", "api/explain"):
        answer = httpx.post(server.url + path, params={"name": "x.png"}, content=content)
        assert answer.status_code == 400
        assert message in answer.json()["error"]
        assert "x.png" in answer.json()["error"]


LARGE = str(2**64 - 1)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"target": "Egyptien cat"}, "Did you mean 'Egyptian cat'"),
        ({"target": "1000"}, "no class"),
        ({"target": "-1"}, "class numbers are whole, from 0 on"),
        ({"target": "1.0"}, "class numbers are whole, from 0 on"),
        ({"target": LARGE}, "target"),
        ({"target": str(2**63)}, "target"),
        ({"target": "9" * 200}, "target"),
        ({"target": "9" * 10_000}, "target has 10000 characters"),
        ({"target": "top0"}, "No class"),
        ({"target": "top99999999999999999999"}, "top"),
        ({"target": "\ud800"}, "No class"),
        ({"model": "torchvision:resnet18"}, "This server has no model"),
        ({"model": "/etc/evil.py:make"}, "This server has no model"),
        ({"preset": "best"}, "preset 'best' is unknown"),
        ({"preset": "from_dict"}, "unknown"),
        ({"settings": '{"k": 2}'}, "k is 2"),
        ({"settings": '{"k": '}, "no JSON"),
        ({"settings": '{"k": NaN}'}, "no JSON"),
        ({"settings": '{"k": 1e999}'}, "k is inf"),
        ({"settings": '{"k": ' + "9" * 3900 + "}"}, "k is 999"),
        ({"settings": "[" * 3999}, "no JSON"),
        ({"settings": '{"a":' * 600 + "1" + "}" * 600}, "unknown setting a"),
        ({"settings": '{"seed": [' + "[" * 900 + "]" * 900 + "]}"}, "seed is [["),
        ({"settings": '{"seed": "\\ud800"}'}, "no JSON"),
        ({"settings": '"' + "x" * 5000 + '"'}, "settings has 5002 characters"),
        ({"settings": "[1]"}, "are an object"),
        ({"settings": '{"mode": 1}'}, "unknown setting mode"),
        ({"settings": '{"name": "paper"}'}, "unknown setting name"),
        ({"settings": '{"self": 1, "cls": 2}'}, "unknown setting cls, self"),
        ({"settings": '{"preset": "x"}'}, "unknown setting preset"),
        ({"settings": '{"tau": {"kind": "mean", "value": 1}}'}, "must be a finite number"),
        ({"settings": '{"gamma": -1}'}, "gamma is -1"),
        ({"settings": '{"tau": "10"}'}, "must be a finite number"),
        ({"colour": "red"}, "unknown parameter colour"),
        ({"path": "/etc/passwd"}, "unknown parameter path"),
        ({"url": "http://127.0.0.1/"}, "unknown parameter url"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_questions_are_refused_with_a_reason(
    server: Any, kept: str, asked: dict[str, str], message: str
) -> None:
    query = "&".join(f"{name}={_quoted(value)}" for name, value in asked.items())
    for path in ("explanation", "explanation.png", "verdict", "flow", "comparison", "sweep"):
        more = {"comparison": "&method=fbi", "sweep": "&k=1&taus=none"}.get(path, "")
        answer = httpx.get(f"{server.url}{kept}/{path}?{query}{more}", timeout=60)
        assert answer.status_code == 400, path
        assert message in answer.json()["error"]
    answer = httpx.post(f"{server.url}api/explain?{query}", content=CAT.read_bytes(), timeout=60)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "path",
    [
        "comparison",
        "comparison?method=lime",
        "comparison?method=" + "fbi," * 49,
        "comparison?" + "&".join(["method=fbi"] * 900),
        "comparison?method=%00",
        "sweep",
        "sweep?k=a&taus=none",
        "sweep?k=nan&taus=none",
        "sweep?k=1e400&taus=none",
        "sweep?k=1&taus=" + "none," * 13,
        "sweep?k=1&taus=nan",
        "sweep?k=1&taus=inf,1",
        "sweep?k=1&taus=-1",
        "sweep?k=1&taus=mean:0.1",
        "explanation?target=1&target=2",
    ],
    ids=lambda path: path[:40],
)
def test_bad_series_are_refused(server: Any, kept: str, path: str) -> None:
    answer = get(server, f"{kept}/{path}")
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "etc/passwd",
        "static/../server.py",
        "static/..%2fserver.py",
        "static/%2e%2e/%2e%2e/errors.py",
        "static//etc/passwd",
        "static/",
        "photo//etc/passwd/explanation",
        "photo/%2fetc%2fpasswd/explanation",
        "photo/AAAAAAAAAAAAAAAAAAAAAA/explanation",
        "photo/AAAAAAAAAAAAAAAAAAAAAA/explanation.png",
        "photo/%00/flow",
        "photo/" + "A" * 10_000 + "/flow",
        "photo/http:%2f%2f127.0.0.1%2fcat.png/sweep?k=1&taus=none",
        "gradio_api/file=/etc/passwd",
        "proxy=http://127.0.0.1:22/",
        "docs",
        "openapi.json",
    ],
)
def test_no_address_names_a_file(server: Any, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        request = httpx.Request(method, server.url)
        raw = request.url.copy_with(raw_path=b"/" + path.encode())
        with httpx.Client() as client:
            answer = client.send(httpx.Request(method, raw))
        assert answer.status_code == 404
        assert answer.json()["error"]


def test_another_method_is_no_way_in(server: Any, kept: str) -> None:
    for path in ("photo", "example", "api/explain", f"{kept}/stay", f"{kept}/forget"):
        assert get(server, path).status_code == 404
    for path in ("", "config", f"{kept}/explanation", f"{kept}/explanation.exe"):
        assert httpx.post(server.url + path, content=b"{}").status_code == 404
    assert get(server, f"{kept}/explanation.exe").status_code == 404
    assert get(server, f"{kept}/explanation").status_code == 200  # still kept


def test_large_uploads_are_refused(server: Any, kept: str) -> None:
    for path in ("photo", "api/explain", "example", f"{kept}/forget", "nowhere"):
        answer = httpx.post(server.url + path, content=b"x" * (2**20 + 1))
        assert answer.status_code == 413
        assert "up to 1 MiB" in answer.json()["error"]


def test_a_body_where_none_is_wanted_is_not_read(server: Any, kept: str) -> None:
    answer = httpx.request("GET", f"{server.url}{kept}/explanation", content=b"x" * 2**17)
    assert answer.status_code == 200


def test_examples(server: Any) -> None:
    config = get(server, "config").json()
    name = config["examples"][0]["name"]
    sent = httpx.post(f"{server.url}example", params={"name": name}).json()
    title = get(server, f"photo/{sent['photo']}/explanation").json()["title"]
    assert title.startswith("espresso")
    for name in ("", "../chelsea.png", "/etc/passwd", str(CAT)):
        answer = httpx.post(f"{server.url}example", params={"name": name})
        assert answer.status_code == 400
        assert "no such example" in answer.json()["error"]


def test_nothing_of_a_forgotten_photo_stays(server: Any) -> None:
    def sent() -> tuple[str, Any]:
        body = COFFEE.read_bytes()
        token = httpx.post(f"{server.url}photo?stay=1", content=body).json()["photo"]
        return token, weakref.ref(server.service.photos.get(token))

    token, photo = sent()
    gc.collect()
    gc.disable()  # what lies in a circle would wait for it, and it seldom comes
    for path in ("verdict", "flow", "explanation.npz", "comparison?method=edge"):
        path, _, query = path.partition("?")
        asked = f"photo/{token}/{path}?model=digits&{query}"
        assert get(server, asked).status_code == 200
    assert get(server, f"photo/{token}/verdict?target=no-such-class").status_code == 400
    assert list(server.service._desk.forwards._passes)
    assert httpx.post(f"{server.url}photo/{token}/stay").status_code == 204
    assert httpx.post(f"{server.url}photo/{token}/forget").status_code == 204
    assert not list(server.service._desk.forwards._passes)
    time.sleep(0.2)  # until the thread that answered is done
    gc.enable()
    assert photo() is None
    for path in ("explanation", "explanation.py", "flow"):
        answer = get(server, f"photo/{token}/{path}")
        assert answer.status_code == 404
        assert "no longer keeps" in answer.json()["error"]
    assert httpx.post(f"{server.url}photo/{token}/stay").status_code == 404
    assert httpx.post(f"{server.url}photo/{token}/forget").status_code == 204  # no oracle


def test_a_closed_page_is_forgotten_without_another_visitor(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = server.service.photos
    monkeypatch.setattr(store, "_away", 0.0)
    dropped: list[Any] = []
    monkeypatch.setattr(store, "_forgotten", dropped.extend)
    httpx.post(f"{server.url}photo?stay=1", content=CAT.read_bytes())
    for _ in range(100):
        if dropped:
            break
        time.sleep(0.05)
    assert dropped


def test_a_fault_is_answered_without_its_traceback(
    server: Any, kept: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret path /home/me")

    monkeypatch.setattr(server.service._desk, "_explain", fail)
    answer = get(server, f"{kept}/explanation")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "RuntimeError: the secret path" in capfd.readouterr().err


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


def test_hosts_are_checked_on_the_wire(server: Any) -> None:
    for host in ("evil.example", "localhost.evil.example:7860"):
        assert httpx.get(server.url, headers={"host": host}).status_code == 400


def test_every_setting_has_a_control_with_a_help() -> None:
    said = helps()
    names = {control["name"] for control in controls()}
    for preset in PRESETS:
        settings = Settings.from_preset(preset)
        assert names == set(settings.to_dict()) - {"preset"}
        assert names <= set(said)
        assert all(text.endswith(".") and 15 < len(text) < 200 for text in said.values())
        assert changes(settings) == {}


def test_names_stay_names(server: Any) -> None:
    """What is in an answer is JSON, and the page makes text of it; files have plain names."""
    photo = torchfbi.Photo(torchfbi.Photo.read(CAT).pixels, "<img src=x onerror=alert(1)>.png")
    explanation = torchfbi.explain("efficientnet-lite0", photo)
    labels = ("</script><script>\ud800", *explanation.labels[1:])  # type: ignore[misc]
    evil = torchfbi.Explanation(
        **{**vars(explanation), "labels": labels, "target": torch.tensor([0])}
    )
    name = "efficientnet-lite0"
    question = Question("token", photo, name, None, explanation.settings, Source(name))
    answer = Answer(question, evil)
    shown = json.loads(views.encode(views.explanation_view(answer)))
    assert shown["label"] == labels[0]
    assert all(sign not in answer.stem for sign in "<>/ ()")


def test_the_two_steps_of_before(server: Any, kept: str) -> None:
    def call(*data: Any) -> str:
        address = f"{server.url}gradio_api/call/explain"
        event = httpx.post(address, json={"data": data}).json()["event_id"]
        return httpx.get(f"{address}/{event}", timeout=60).text

    said = call({"path": kept.partition("/")[2]}, "lynx", "", "contrast", {"k": 0.5})
    assert said.startswith("event: complete\ndata: [{")
    assert json.loads(said.partition("data: ")[2])[0]["target"] == 287
    file = {"meta": {"_type": "gradio.FileData"}}
    for path in (str(CAT), "/etc/passwd", f"{server.url}config", "", 7, None, [kept]):
        assert call({**file, "path": path}).startswith('event: error\ndata: "')
    for more in ([7], [["x"]], ["", "/etc/evil.py:make"], ["", "", "", 7], ["", "", "", "{"]):
        assert call({"path": kept.partition("/")[2]}, *more).startswith('event: error\ndata: "')


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[" * 7000, b'{"data": []}', b'{"data": 7}', b'{"data": ["x"]}', b"\xff"),
        *(b"9" * 7000, b'{"data": [{"path": "x"}]}' + b" " * 9000),
        b'{"data": [' + b"[" * 3000 + b"]" * 3000 + b"]}",
    ],
    ids=range(10),
)
def test_what_is_no_such_step(server: Any, body: bytes) -> None:
    answer = httpx.post(f"{server.url}gradio_api/call/explain", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("event", ["x", "AAAA", "%ff", "W10=", "W1tdXQ==", "bnVsbA==", "A" * 9000])
def test_events_that_nobody_named(server: Any, event: str) -> None:
    answer = get(server, f"gradio_api/call/explain/{event}")
    assert answer.status_code == 200
    assert answer.text.startswith('event: error\ndata: "')
