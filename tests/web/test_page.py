"""The page in a real browser, which is told to report any request to another host."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

import torchfbi
from browser import open_page
from photos import CAT, COFFEE
from torchfbi.explanation import Explanation

expect.set_options(timeout=60_000)

REFUSED = "the server responded with a status of 400"
"""What a browser writes into its console when a bad file is refused."""


@pytest.fixture
def opened(browser: Browser, server: Any):
    """Opens pages; afterwards nothing may have gone wrong in any of them."""
    pages: list[tuple[Page, list[str]]] = []

    def open_(**options: Any) -> Page:
        page, wrong = open_page(browser, server.url, **options)
        page.set_default_timeout(60_000)
        pages.append((page, wrong))
        page.wait_for_selector("#fbi-drop input[type=file]", state="attached")
        return page

    yield open_
    for page, wrong in pages:
        page.context.close()
        assert [what for what in wrong if REFUSED not in what] == []


def upload(page: Page, photo: Path, title: str) -> None:
    page.set_input_files("#fbi-drop input[type=file]", photo)
    expect(page.locator(".fbi-viewer figcaption strong")).to_contain_text(title)


def test_a_cat_its_class_the_slider_and_the_files(opened: Any, server: Any, tmp_path: Path) -> None:
    page = opened(accept_downloads=True)
    expect(page.locator("#fbi-explanation")).to_contain_text("Choose a photo")
    upload(page, CAT, "tiger cat")
    buttons = page.locator(".fbi-class")
    expect(buttons).to_have_count(5)
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "true")

    # Another class: another explanation of the same photo.
    before = page.locator(".fbi-viewer .glow").get_attribute("src")
    buttons.filter(has_text="Egyptian cat").click()
    expect(page.locator(".fbi-viewer figcaption strong")).to_contain_text("Egyptian cat")
    pressed = page.locator(".fbi-class[aria-pressed=true]")
    expect(pressed).to_have_count(1)
    expect(pressed).to_contain_text("Egyptian cat")
    assert page.locator(".fbi-viewer .glow").get_attribute("src") != before

    # The opacity is a matter of the browser alone, and stays.
    slider = page.get_by_label("Opacity of the explanation")
    slider.fill("30")
    glow = page.locator(".fbi-viewer .glow")
    expect(glow).to_have_css("opacity", "0.3")
    buttons.filter(has_text="lynx").click()
    expect(page.locator(".fbi-viewer figcaption strong")).to_contain_text("lynx")
    expect(glow).to_have_css("opacity", "0.3")
    expect(slider).to_have_value("30")

    # The files are of the class that is shown.
    page.get_by_role("tab", name="Download").click()
    expect(page.locator(".fbi-code")).to_contain_text("287,  # lynx")
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("^NPZ")).click()
    assert download.value.suggested_filename == "chelsea-lynx.npz"
    download.value.save_as(tmp_path / "lynx.npz")
    expected = torchfbi.explain(server.desk.model("efficientnet-lite0"), CAT, "lynx")
    loaded = Explanation.load(tmp_path / "lynx.npz")
    assert loaded.target.tolist() == [287]
    assert np.allclose(loaded.values, expected.values, rtol=1e-3, atol=1e-5)
    for kind in ("PNG", "SVG", "JSON", "PY"):
        expect(page.get_by_role("link", name=re.compile(f"^{kind}"))).to_have_count(1)


def test_settings_presets_and_models(opened: Any) -> None:
    page = opened()
    page.get_by_role("button", name="A cup of coffee").click()
    expect(page.locator(".fbi-viewer figcaption strong")).to_contain_text("espresso")
    caption = page.locator(".fbi-viewer figcaption span")

    # A knob, under the fold.
    page.get_by_role("button", name="Every setting").click()
    size = caption.inner_text()
    page.wait_for_timeout(1000)  # Gradio may lose a change that comes as another's answer ends
    k = page.get_by_label("number input for k", exact=True)
    k.fill("0.2")
    k.press("Enter")
    expect(caption).not_to_have_text(size)

    # The published threshold lets nothing through this network, which is said; the knobs move.
    page.get_by_role("radio", name="paper").check()
    expect(page.locator(".fbi-none")).to_contain_text("Empty support")
    number = page.get_by_label("threshold: number", exact=True)
    expect(number).to_have_value("10")
    number.fill("0.2")
    number.press("Enter")
    expect(page.locator(".fbi-none")).to_have_count(0)

    # What makes no sense is refused with the reason, and what was there stays.
    page.get_by_label("layers").fill("nothing.*")
    page.get_by_label("layers").press("Enter")
    expect(page.get_by_text("no feature of this network is called 'nothing.*'")).to_be_visible()
    expect(page.locator(".fbi-viewer .glow")).to_have_count(1)
    page.get_by_label("layers").fill("*")

    # A class by its name.
    other = page.get_by_label("Another class")
    other.fill("goldfish")
    other.press("Enter")
    expect(page.locator(".fbi-viewer figcaption strong")).to_contain_text("goldfish")
    expect(page.locator(".fbi-class")).to_have_count(6)

    # Another network has other classes.
    page.get_by_label("Network").click()
    page.get_by_role("option", name="digits").click()
    expect(page.locator(".fbi-viewer figcaption span")).to_contain_text("digits")
    expect(page.locator(".fbi-class")).to_have_count(5)


def test_the_flow_from_the_class_to_the_pixels(opened: Any) -> None:
    page = opened()
    upload(page, CAT, "tiger cat")
    page.get_by_role("tab", name="Flow").click()
    flow = page.locator(".fbi-flow")
    expect(flow).to_be_visible()
    layers = flow.locator("section")
    assert layers.count() > 30
    expect(layers.nth(0)).to_be_visible()
    expect(layers.nth(0).locator(".fbi-maps img")).to_have_count(8)

    # The keyboard moves through the layers, and says where it is.
    slider = flow.get_by_label("Layer, from the top")
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    expect(layers.nth(2)).to_be_visible()
    expect(layers.nth(0)).to_be_hidden()
    name = layers.nth(2).get_attribute("aria-label")
    expect(slider).to_have_attribute("aria-valuetext", name)
    slider.press("End")
    expect(layers.last).to_be_visible()
    expect(layers.last.get_by_alt_text("The photo as the network sees it")).to_be_visible()

    # It plays, from the start.
    flow.get_by_role("button", name="Play").press("Enter")
    expect(slider).to_have_value(re.compile(r"[1-9]|1\d"))
    flow.get_by_role("button", name="Play").click()  # pause

    # Another class while the flow is looked at: its flow.
    page.get_by_role("tab", name="Explanation").click()
    page.locator(".fbi-class").filter(has_text="lynx").click()
    expect(page.locator(".fbi-viewer figcaption strong")).to_contain_text("lynx")
    page.get_by_role("tab", name="Flow").click()
    expect(flow.locator(".fbi-lead")).to_contain_text("lynx")


def test_compare_and_sweep(opened: Any) -> None:
    page = opened()
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Compare them").click()
    expect(page.get_by_text("Choose a photo first.")).to_be_visible()
    page.get_by_role("button", name="A tabby cat").click()
    page.get_by_role("checkbox", name="edge", exact=True).check()
    page.get_by_role("checkbox", name="guided-backprop").uncheck()
    expect(page.locator("#fbi-explanation .fbi-viewer")).to_have_count(1)
    page.get_by_role("button", name="Compare them").click()
    done = page.locator(".fbi-grid figure:not(.waiting)")
    expect(done).to_have_count(4)
    assert done.locator("strong").all_inner_texts() == [
        "fbi:contrast",
        "fbi-paper",
        "grad-cam",
        "edge",
    ]

    page.get_by_role("tab", name="Sweep").click()
    page.get_by_label("k: shares").fill("0.1, 1")
    page.get_by_label("Thresholds").fill("0.02 mass:0.8")
    page.get_by_role("button", name="Draw the grid").click()
    rows = page.locator(".fbi-sweep tbody tr:not(.waiting)")
    expect(rows).to_have_count(2)
    assert page.locator(".fbi-sweep thead th").all_inner_texts() == [
        "maps kept", "τ = 0.02", "mass = 0.8",
    ]  # fmt: skip
    expect(rows.nth(1).locator("td")).to_have_count(2)
    page.get_by_label("k: shares").fill("a lot")
    page.get_by_role("button", name="Draw the grid").click()
    expect(page.get_by_text("'a lot' are no numbers")).to_be_visible()


def test_bad_files_say_what_is_wrong(opened: Any, tmp_path: Path) -> None:
    page = opened()
    said = page.locator("#fbi-drop .said")
    text, large = tmp_path / "notes.png", tmp_path / "large.png"
    text.write_text("These are no pixels.")
    large.write_bytes(CAT.read_bytes() * 8)
    page.set_input_files("#fbi-drop input[type=file]", text)
    expect(said).to_contain_text("notes.png is no picture")
    expect(said).to_have_class(re.compile("bad"))
    page.set_input_files("#fbi-drop input[type=file]", large)
    expect(said).to_contain_text("this server takes up to 1 MiB")
    upload(page, COFFEE, "espresso")
    expect(said).to_have_text("coffee.png")
    expect(said).not_to_have_class(re.compile("bad"))


def test_two_visitors_do_not_see_each_other(opened: Any, server: Any) -> None:
    one, two = opened(), opened()
    upload(one, CAT, "tiger cat")
    upload(two, COFFEE, "espresso")
    one.locator(".fbi-class").filter(has_text="lynx").click()
    two.get_by_role("radio", name="plain").check()
    expect(one.locator(".fbi-viewer figcaption strong")).to_contain_text("lynx")
    expect(two.locator(".fbi-viewer .photo")).to_have_attribute("alt", re.compile("coffee.png"))
    expect(two.locator(".fbi-class").first).to_contain_text("espresso")
    expect(one.locator(".fbi-class").first).to_contain_text("tiger cat")

    # What a visitor leaves is forgotten, and only that.
    links = []
    for page in (one, two):
        page.get_by_role("tab", name="Download").click()
        links.append(server.url + page.locator(".fbi-files a").first.get_attribute("href"))
    assert [two.request.get(link).status for link in links] == [200, 200]
    one.close()
    for _ in range(200):
        if two.request.get(links[0]).status == 404:
            break
        two.wait_for_timeout(100)
    assert [two.request.get(link).status for link in links] == [404, 200]


@pytest.mark.parametrize(
    ("width", "height"), [(1600, 60), (60, 1600)], ids=["very wide", "very tall"]
)
def test_on_a_phone_in_the_dark(opened: Any, tmp_path: Path, width: int, height: int) -> None:
    photo = tmp_path / "strip.png"
    Image.open(COFFEE).resize((width, height)).save(photo)
    page = opened(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    page.set_input_files("#fbi-drop input[type=file]", photo)
    viewer = page.locator(".fbi-viewer .fbi-stage")
    expect(viewer).to_be_visible()
    box = viewer.bounding_box()
    assert box["width"] <= 390
    assert box["height"] <= 844
    assert box["width"] / box["height"] == pytest.approx(width / height, rel=0.1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground)[:3])) < 40


def test_by_keyboard_alone_and_with_names_for_all(opened: Any) -> None:
    page = opened()

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"{selector} cannot be reached by the keyboard")

    tab_to("[data-example='coffee.png']")
    page.keyboard.press("Enter")
    expect(page.locator(".fbi-viewer figcaption strong")).to_contain_text("espresso")
    tab_to(".fbi-opacity input")
    page.keyboard.press("Home")
    expect(page.locator(".fbi-viewer .glow")).to_have_css("opacity", "0")
    tab_to(".fbi-class:nth-of-type(2)")
    page.keyboard.press("Enter")
    expect(page.locator(".fbi-class").nth(1)).to_have_attribute("aria-pressed", "true")
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('img, button, input')].filter(e => "
        "e.matches('[class^=fbi] *') && !(e.alt || e.ariaLabel || e.innerText || "
        "e.labels?.length || e.querySelector('img[alt]') || e.matches('img[alt=\"\"]')))"
        ".map(e => e.outerHTML)"
    )
    assert nameless == []


def test_a_picture_can_be_pasted(opened: Any) -> None:
    page = opened()
    buffer = io.BytesIO()
    Image.open(CAT).save(buffer, "PNG")
    page.evaluate(
        """bytes => {
          const held = new DataTransfer();
          held.items.add(new File([new Uint8Array(bytes)], 'image.png', {type: 'image/png'}));
          document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: held}));
        }""",
        list(buffer.getvalue()),
    )
    expect(page.locator(".fbi-viewer figcaption strong")).to_contain_text("tiger cat")
    expect(page.locator(".fbi-viewer .photo")).to_have_attribute("alt", re.compile("image.png"))


def test_what_ends_beside_a_click_goes_past_the_queue(server: Any) -> None:
    """Else the stream that the browser reads ends with it, and a click at that moment is lost."""
    events = httpx.get(f"{server.url}config").json()["dependencies"]
    chained = [event for event in events if event["trigger_after"] is not None]
    looks = [event for event in events if any(kind == "select" for _, kind in event["targets"])]
    assert chained
    assert len(looks) == 1  # at another tab
    assert not any(event["queue"] for event in chained + looks)
