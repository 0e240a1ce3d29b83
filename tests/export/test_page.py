"""The exported page, in a browser, from a bare file server: what it says is what Python says."""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page
from torch import nn

import torchfbi
from browser import EVIL, open_page, serving
from photos import CAT, COFFEE, FOLDER
from torchfbi.export import TOP_CLASS, Inputs, Outputs, export
from torchfbi.export.agreement import Loss, compare

SETTINGS = torchfbi.Settings.contrast(k=0.8)  # so that the page has a slider
SIDE = 64
PHOTOS = (CAT, COFFEE, FOLDER / "rocket.jpg")
ANSWER = """() => {
  const { support, values, logits } = window.torchfbi.shown.explanation;
  const text = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let characters = "";
    for (const byte of bytes) characters += String.fromCharCode(byte);
    return btoa(characters);
  };
  return [text(support), text(values), text(logits)];
}"""

SET = """([id, value]) => {
  const slider = document.getElementById(id);
  slider.value = value;
  slider.dispatchEvent(new Event("input")); // all that Firefox says of keys that move it
}"""


@pytest.fixture(scope="module")
def network() -> torchfbi.Model:
    """Of random weights, with ImageNet's classes: what a page shows does not depend on more."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 5, 2), nn.BatchNorm2d(16), nn.ReLU6(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 32, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 1000),
    ).eval()  # fmt: skip
    preprocess = torchfbi.Preprocess(SIDE + 8, SIDE, (0.5,) * 3, (0.25,) * 3, "bicubic")
    return torchfbi.Model(module, preprocess, torchfbi.Labels.imagenet(), "small")


@pytest.fixture(scope="module")
def folder(network: torchfbi.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(network, tmp_path_factory.mktemp("web") / "page", "web", SETTINGS).path


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(folder) as url:
        yield url


@pytest.fixture
def opened(browser: Browser, url: str) -> Iterator[tuple[Page, list[str]]]:
    page, wrong = open_page(browser, url)
    page.set_default_timeout(120_000)
    page.wait_for_selector("html[data-ready]")
    yield page, wrong
    page.context.close()
    assert not wrong  # no request to another host, no error


def explain(page: Page, photo: Path) -> None:
    page.set_input_files("#file", photo)
    explained(page, photo.name)


def explained(page: Page, name: str) -> None:
    """Wait for this photo's explanation: the page opens with an example's, on its own."""
    page.wait_for_function(
        "name => window.torchfbi?.shown.photo?.name === name && window.torchfbi.shown.explanation",
        arg=name,
    )


def chosen(page: Page) -> str:
    return page.inner_text('#classes [aria-pressed="true"] .name')


def answer(page: Page) -> dict[str, np.ndarray]:
    support, values, logits = (base64.b64decode(text) for text in page.evaluate(ANSWER))
    return {
        "support": np.frombuffer(support, bool).reshape(SIDE, SIDE),
        "values": np.frombuffer(values, np.float32).reshape(3, SIDE, SIDE),
        "logits": np.frombuffer(logits, np.float32),
    }


def assert_same(
    network: torchfbi.Model,
    found: dict[str, np.ndarray],
    photo: Path,
    target: int = TOP_CLASS,
    k: float = SETTINGS.k,
) -> None:
    """What the page found is what Python finds, but for rounding."""
    settings = SETTINGS.override(k=k)
    x = network.preprocess(torchfbi.Photo.read(photo))[0][None]
    walker = torchfbi.ForwardBackward(network.module, x, settings)
    answer = {name: torch.from_numpy(array.copy())[None] for name, array in found.items()}
    compare(walker, Inputs.of(x, torch.tensor([target]), settings), Outputs(**answer))


def test_the_support_is_that_of_python(
    opened: tuple[Page, list[str]], network: torchfbi.Model
) -> None:
    page, _ = opened
    for photo in PHOTOS:
        explain(page, photo)
        expected = torchfbi.explain(network, photo, settings=SETTINGS)
        assert chosen(page) == expected.label(int(expected.target[0]))
        assert_same(network, answer(page), photo)


def test_another_class_other_settings_and_back(
    opened: tuple[Page, list[str]], network: torchfbi.Model, tmp_path: Path
) -> None:
    page, _ = opened
    explain(page, CAT)
    top = chosen(page)
    second, name, _ = torchfbi.explain(network, CAT, settings=SETTINGS).top(2)[1]
    first = answer(page)["support"]

    def after(act: Any) -> dict[str, np.ndarray]:
        page.evaluate("window.torchfbi.shown.explanation = null")
        act()
        page.wait_for_function("() => window.torchfbi.shown.explanation")
        return answer(page)

    other = after(lambda: page.get_by_role("button", name=name).press("Enter"))
    assert chosen(page) == name != top
    assert_same(network, other, CAT, second)
    assert name in page.get_attribute("#canvas", "aria-label")
    assert page.evaluate("document.activeElement.textContent").startswith(name)

    last, rare, _ = torchfbi.explain(network, CAT, settings=SETTINGS).top(9)[8]
    page.fill("#other", rare)
    assert_same(network, after(lambda: page.press("#other", "Enter")), CAT, last)
    assert chosen(page) == rare
    after(lambda: page.get_by_role("button", name=name).click())

    page.click("summary")
    assert page.is_visible("#k-setting")
    assert page.is_hidden("#tau-setting")  # exported without
    less = after(lambda: page.evaluate(SET, ["k", 0.3]))
    assert_same(network, less, CAT, second, k=0.3)
    after(lambda: page.click("#reset"))
    assert page.input_value("#k") == "0.8"
    back = after(lambda: page.get_by_role("button", name=top).click())
    assert np.array_equal(back["support"], first)

    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == f"chelsea-{top.replace(' ', '-')}.png"
    download.value.save_as(tmp_path / "cat.png")
    full = np.asarray(Image.open(tmp_path / "cat.png").convert("RGB")).astype(int)
    assert full.shape == (300, 451, 3)
    page.fill("#opacity", "0")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "photo.png")
    bare = np.asarray(Image.open(tmp_path / "photo.png").convert("RGB"))
    assert np.array_equal(bare, np.asarray(Image.open(CAT).convert("RGB")))
    assert np.abs(full - bare).max() > 50


def test_what_is_no_photo_is_answered_in_words(
    opened: tuple[Page, list[str]], tmp_path: Path
) -> None:
    page, _ = opened
    page.click('#examples [value="cat.jpg"]')
    explained(page, "cat.jpg")
    page.fill("#other", "no such class")
    page.press("#other", "Enter")
    page.locator("#status.wrong", has_text="no such class").wait_for()
    (tmp_path / "notes.txt").write_text("no picture")
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.locator("#status.wrong", has_text="notes.txt is no picture").wait_for()


def test_an_answer_that_comes_later_does_not_wipe_a_complaint_away(
    opened: tuple[Page, list[str]],
) -> None:
    page, _ = opened
    explain(page, CAT)
    page.evaluate(
        "() => { document.querySelector('#classes button').click();"
        "const other = document.getElementById('other'); other.value = 'no such class';"
        "other.dispatchEvent(new Event('change')); }"
    )
    page.wait_for_function("() => window.torchfbi.shown.explanation")
    assert "no such class" in page.inner_text("#status")
    page.click("#classes button")
    page.wait_for_function("() => window.torchfbi.shown.explanation")
    assert page.inner_text("#status") == ""


def test_weights_are_rounded_unless_that_changes_the_answer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kind(page: Path) -> int:
        weights = onnx.load(page / "explainer.onnx").graph.initializer
        return max(weights, key=lambda weight: math.prod(weight.dims)).data_type

    assert kind(folder) == onnx.TensorProto.INT16
    monkeypatch.setattr("torchfbi.export.loss", lambda *_: Loss(float("nan"), 1.0))
    layers = nn.Conv2d(3, 16, 5, 5), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 9, 32)
    preprocess = torchfbi.Preprocess(15, 15, (0.5,) * 3, (0.25,) * 3)
    small = torchfbi.Model(
        nn.Sequential(*layers).eval(), preprocess, torchfbi.Labels.numbered(32), "smaller"
    )
    exact = export(small, tmp_path / "page", "web", "plain")
    assert exact.loss is None
    assert kind(exact.path) == onnx.TensorProto.FLOAT


def test_a_dark_photo_is_brightened_where_it_is_explained(
    opened: tuple[Page, list[str]], tmp_path: Path
) -> None:
    page, _ = opened
    Image.fromarray(np.full((64, 64, 3), 51, np.uint8)).save(tmp_path / "night.png")
    explain(page, CAT)
    assert "brightened" not in page.inner_text("#facts")
    explain(page, tmp_path / "night.png")
    assert "brightened" in page.inner_text("#facts")
    darkest = page.evaluate(
        "() => { const canvas = document.getElementById('canvas');"
        "const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        "return data.reduce((least, level) => Math.min(least, level)); }"
    )
    assert darkest == pytest.approx(0.22 * 255 / 3, abs=1)  # 51 of 255 become a third, then dim


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it(browser: Browser, url: str, scheme: str) -> None:
    page, wrong = open_page(
        browser, url, viewport={"width": 360, "height": 740}, color_scheme=scheme
    )
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(shade[4:].split(",")[0]) < 128) == (scheme == "dark")
    page.context.close()
    assert not wrong


def test_no_script_runs_in_names_of_classes_and_files(
    folder: Path, browser: Browser, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "page")
    about = json.loads((folder / "explainer.json").read_text())
    about["labels"] = [EVIL[number % len(EVIL)] for number in range(len(about["labels"]))]
    about["model"] = EVIL[0]
    about["assumed"] = [EVIL[3]]
    (tmp_path / "page/explainer.json").write_text(json.dumps(about))
    photo = tmp_path / EVIL[1]
    photo.write_bytes(CAT.read_bytes())
    with serving(tmp_path / "page") as url:
        page, wrong = open_page(browser, url)
        page.set_default_timeout(120_000)
        page.wait_for_selector("html[data-ready]")
        explain(page, photo)
        for element in page.query_selector_all("body *"):
            element.dispatch_event("mouseover")
        assert page.evaluate("window.ran") is None
        assert wrong == []
        assert "onerror" in page.inner_text("#classes")
        assert page.inner_text("#assumed") == EVIL[3]
        page.context.close()
