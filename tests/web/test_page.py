"""The page in a real browser, which is told to report any request to another host."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

import torchfbi
from browser import open_page
from pageserver import small
from photos import CAT, COFFEE
from torchfbi.explanation.explanation import Explanation

pytestmark = pytest.mark.usefixtures("shared_networks")

expect.set_options(timeout=60_000)

VERDICT = {
    "ruling": "holds in part",
    "gist": "One sentence.",
    "sentence": "All of them.",
    "size": [224, 224],
    "outlines": {"sufficient": "M56 56H112M56 112H112M56 56V112M112 56V112"},
}
"""What the server says in these tests, as its 60 forward passes take a while; that it says so is in
test_http.py."""

REFUSED = re.compile(r"the server responded with a status of 40[04]|net::ERR_FAILED")
"""What a browser writes into its console when something fails, which the page says as well."""


@pytest.fixture
def opened(browser: Browser, server: Any):
    """Opens pages; afterwards nothing may have gone wrong in any of them."""
    pages: list[tuple[Page, list[str]]] = []

    def open_(**options: Any) -> Page:
        page, wrong = open_page(browser, server.url, **options)
        page.set_default_timeout(60_000)
        page.route("**/verdict?*", lambda route: route.fulfill(json=VERDICT))
        pages.append((page, wrong))
        return page

    yield open_
    for page, wrong in pages:
        page.context.close()
        assert [what for what in wrong if not REFUSED.search(what)] == []


def claim(page: Page, title: str) -> None:
    expect(page.locator("#claim")).to_contain_text(title)


def upload(page: Page, photo: Path, title: str) -> None:
    page.set_input_files("#file", photo)
    expect(page.locator("#photo")).to_have_attribute("alt", re.compile(photo.name))
    claim(page, title)


def tab_to(page: Page, selector: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by the keyboard")


def test_arriving_a_class_holding_and_the_files(opened: Any, tmp_path: Path) -> None:
    page = opened(accept_downloads=True)
    claim(page, "espresso")  # an example, explained without being asked
    classes = page.locator("#classes button")
    expect(classes).to_have_count(5)
    expect(page.locator("#painted")).to_have_attribute("alt", re.compile("espresso"))
    expect(page.locator("#verdict strong")).to_have_text("Holds in part")

    # Another class: another explanation of the same photo.
    before = page.locator("#painted").get_attribute("src")
    classes.filter(has_text="tea cup").click()
    claim(page, "tea cup")
    pressed = page.locator("#classes [aria-pressed=true]")
    expect(pressed).to_have_count(1)
    expect(pressed).to_contain_text("tea cup")
    assert page.locator("#painted").get_attribute("src") != before

    # The photo below: by the slider, and for as long as the button is held.
    over = page.locator("#over")
    page.get_by_label("Opacity of the explanation").fill("30")
    expect(over).to_have_css("opacity", "0.3")
    hold = page.get_by_role("button", name="Hold to see the photo")
    hold.dispatch_event("pointerdown")
    expect(over).to_have_css("visibility", "hidden")
    hold.dispatch_event("pointerup")
    expect(over).to_have_css("visibility", "visible")

    # What is saved is what is seen, and the files are of the class that is shown.
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the picture").click()
    assert saved.value.suggested_filename == "coffee-tea-cup-contrast.png"
    saved.value.save_as(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as seen:
        assert seen.size == (600, 400)
    page.get_by_role("tab", name="Files").click()
    expect(page.locator("#program")).to_contain_text("968,  # tea cup")
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("^NPZ")).click()
    assert download.value.suggested_filename == "coffee-tea-cup.npz"
    download.value.save_as(tmp_path / "tea-cup.npz")
    expected = torchfbi.explain("efficientnet-lite0", COFFEE, "tea cup")
    loaded = Explanation.load(tmp_path / "tea-cup.npz")
    assert loaded.target.tolist() == [968]
    assert np.allclose(loaded.values, expected.values, rtol=1e-3, atol=1e-5)
    expect(page.locator("#downloads a")).to_have_count(5)


def test_presets_settings_and_networks(opened: Any) -> None:
    page = opened()
    claim(page, "espresso")
    about = page.locator("#about")

    # The published threshold lets nothing through this network: another one is taken, and said.
    page.get_by_text("Outlines", exact=True).click()
    expect(page.locator("#notes")).to_contain_text("exceeds τ = 10")
    page.get_by_text("Every setting").click()
    tau = page.locator("[name=tau]")
    expect(tau).to_have_value(re.compile(r"0\.\d+"))

    # Who sets it by hand gets what was set, with a way back.
    tau.fill("10")
    tau.press("Enter")
    expect(page.locator("#notes")).to_contain_text("nothing exceeds tau = 10 here")
    page.get_by_role("button", name="Take a τ that fits").click()
    expect(page.locator("#notes")).to_contain_text("was taken")

    # What makes no sense is refused with the reason.
    k = page.locator("[name=k]")
    k.fill("7")
    k.press("Enter")
    expect(page.locator("#status")).to_contain_text("k is 7")
    expect(page.locator("#over")).to_have_css("visibility", "hidden")
    page.get_by_role("button", name="Reset").click()
    expect(about).to_contain_text("of the pixels carry it")

    # A class by its name, and one that there is not.
    other = page.get_by_label("Another class")
    other.fill("goldfish")
    other.press("Enter")
    claim(page, "goldfish")
    expect(page.locator("#notes")).to_contain_text("does not see this class")
    other.fill("goldfisch")
    other.press("Enter")
    expect(page.locator("#status")).to_contain_text("Did you mean 'goldfish'")

    # Another network has other classes.
    page.locator("#network").select_option("digits")
    expect(about).to_contain_text("digits")
    expect(page.locator("#classes button")).to_have_count(5)


def test_the_flow_from_the_class_to_the_pixels(opened: Any) -> None:
    page = opened()
    claim(page, "espresso")
    page.get_by_role("tab", name="Flow").click()
    layers = page.locator("#flow section")
    shown = page.locator("#flow section:not([hidden])")
    expect(shown).to_have_count(1)
    assert layers.count() > 30
    expect(layers.nth(0)).to_be_hidden()  # 7 x 7: it says little
    expect(shown.locator(".maps img")).to_have_count(8)

    # The keyboard moves through the layers, and says where it is.
    slider = page.get_by_label("Layer, from the class to the pixels")
    slider.focus()
    slider.press("End")
    expect(layers.last).to_be_visible()
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^image, (\d+) of \1$"))

    # It plays, from the start.
    page.get_by_role("button", name="Play").press("Enter")
    expect(slider).to_have_value(re.compile(r"^[1-9]$|^1\d$"))
    page.get_by_role("button", name="Pause").click()

    # Another class while the flow is looked at: its flow, and never the old one under its name.
    page.locator("#classes button").filter(has_text="tea cup").click()
    claim(page, "tea cup")
    expect(shown).to_have_count(1)


def test_compare_and_sweep_by_keyboard(opened: Any) -> None:
    page = opened()
    claim(page, "espresso")
    page.locator("#network").select_option("digits")  # the small one
    claim(page, "9")
    said = page.get_by_role("status").filter(has=page.locator("#status"))  # and read aloud
    tab_to(page, "[role=tab]")
    page.keyboard.press("End")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    for name in ("guided-backprop", "grad-cam", "edge"):
        tab_to(page, f"[value='{name}']")
        page.keyboard.press(" ")
    tab_to(page, "#ask-methods")
    page.keyboard.press("Enter")
    names = page.locator("#compared figcaption strong")
    expect(names).to_have_text(["fbi", "fbi-paper", "edge"])
    expect(said).to_contain_text(
        re.compile(r"Marked by each: fbi [\d.]+%, fbi-paper [\d.]+%, edge")
    )
    focused = "document.activeElement.matches(':focus-visible') && document.activeElement.id"
    assert page.evaluate(focused) == "ask-methods"

    page.get_by_role("tab", name="Compare").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tabpanel", name="Sweep")).to_be_visible()
    expect(page.locator("#status")).to_have_text("")
    for field, text in (("#ks", "0.1, 1"), ("#taus", "0.02 3")):
        tab_to(page, field)
        page.keyboard.press("Control+A")
        page.keyboard.type(text)
    page.keyboard.press("Enter")
    expect(said).to_contain_text("The grid is drawn: 2 times 2 pictures.")
    expect(page.locator("#swept tbody tr")).to_have_count(2)
    expect(page.locator("#swept thead th")).to_have_text(["maps kept", "τ = 0.02", "τ = 3"])
    page.get_by_label("k, shares").fill("a lot")
    page.get_by_role("button", name="Draw the grid").click()
    expect(page.locator("#status")).to_contain_text("k is 'a': write a number")


def test_many_photos(opened: Any, tmp_path: Path) -> None:
    page = opened(accept_downloads=True)
    text = tmp_path / "notes.txt"
    text.write_text("These are no pixels.")
    page.set_input_files("#file", [CAT, text, COFFEE])
    claim(page, "tiger cat")
    expect(page.locator("#counted")).to_have_text("3 photos")
    thumbnails = page.locator("#thumbnails button")
    texts = [
        re.compile(r"^tiger cat \d+%$"),
        re.compile("notes.txt is no picture"),
        "espresso 95%",
    ]
    expect(thumbnails).to_have_text(texts)
    thumbnails.nth(2).click()
    claim(page, "espresso")
    expect(thumbnails.nth(2)).to_have_attribute("aria-pressed", "true")

    # What suffices is outlined, and what is saved is what is seen.
    expect(page.locator("#verdict")).to_contain_text("Holds in part One sentence.")
    pictures = []
    for name in ("outlined.png", "bare.png"):
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save the picture").click()
        saved.value.save_as(tmp_path / name)
        pictures.append(np.asarray(Image.open(tmp_path / name)))
        page.evaluate("document.getElementById('outline').replaceChildren()")
    changed = (pictures[0] != pictures[1]).any(-1)
    assert 0.005 < changed.mean() < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
def test_a_network_of_ones_own(opened: Any, server: Any, tmp_path: Path) -> None:
    network, program = tmp_path / "tumours.onnx", tmp_path / "tumours.pt2"
    network.write_bytes(small())
    program.write_bytes(b"PK")
    page = opened()
    claim(page, "espresso")
    said, assumed = page.locator("#status"), page.locator("#assumed")
    expect(assumed).to_be_hidden()
    page.set_input_files("#file", program)
    expect(said).to_contain_text("may hold code")
    claim(page, "espresso")
    page.set_input_files("#file", network)
    expect(page.locator("#about")).to_contain_text("tumours.onnx")
    expect(page.locator("#network")).to_have_value(re.compile("^dropped-"))
    expect(assumed).to_contain_text("RGB of 0 to 1, less 0.485")
    expect(page.locator("#classes button")).to_have_count(3)
    first = page.locator("#network").input_value()
    page.get_by_text("Say how this network's inputs were made").click()
    mean = page.get_by_label("Means, on a scale")
    expect(mean).to_have_attribute("placeholder", "0.485, 0.456, 0.406")
    mean.fill("0.5")
    mean.press("Enter")
    expect(assumed).to_contain_text("made: divided by 0.229, 0.224, 0.225; the shorter side")
    assert page.locator("#network").input_value() != first
    page.get_by_label("A usual scaling").select_option("Caffe's")
    page.get_by_label("Whole photo, squeezed").check()
    page.get_by_role("button", name="Explain again").click()
    expect(page.locator("#program")).to_contain_text("channels='BGR', fit='stretch'")
    expect(page.locator("#program")).to_contain_text("mean=[0.40760392, 0.45795686, 0.48501961]")
    expect(assumed).to_be_hidden()
    mean.fill("0.5, 0")
    mean.press("Enter")
    expect(said).to_contain_text("one number a channel")
    page.locator("#network").select_option("efficientnet-lite0")
    claim(page, "espresso")
    expect(mean).to_be_hidden()
    assert len(server.service.guests) == 1
    page.evaluate("location = 'about:blank'")
    for _ in range(100):
        if not len(server.service.guests):
            break
        page.wait_for_timeout(50)
    assert not len(server.service.guests)

    # Where it is not allowed, the page says so.
    config = {**httpx.get(f"{server.url}config").json()}
    config["limits"]["network"] = 0
    page.route("**/config", lambda route: route.fulfill(json=config))
    page.goto(server.url)
    claim(page, "espresso")
    page.set_input_files("#file", network)
    expect(said).to_contain_text("--allow-networks")
    claim(page, "espresso")


def test_bad_files_say_what_is_wrong(opened: Any, tmp_path: Path) -> None:
    page = opened()
    claim(page, "espresso")
    said = page.locator("#status")
    text, large = tmp_path / "notes.png", tmp_path / "large.png"
    text.write_text("These are no pixels.")
    large.write_bytes(CAT.read_bytes() * 8)
    page.set_input_files("#file", text)
    expect(said).to_contain_text("notes.png is no picture")
    expect(said).to_have_class("wrong")
    expect(page.locator("#over")).to_have_css("visibility", "hidden")
    page.set_input_files("#file", large)
    expect(said).to_contain_text("this server takes up to 1 MiB")
    upload(page, CAT, "tiger cat")
    expect(said).to_have_text("")


def test_who_is_asked_last_is_answered_on_a_slow_server_as_well(opened: Any) -> None:
    page = opened()
    claim(page, "espresso")
    held: list[Route] = []

    def hold(pattern: str) -> None:
        page.route(pattern, lambda route: held.append(route), times=1)

    # A photo that is chosen before the page knows whom to ask.
    hold("**/config")
    page.reload(wait_until="domcontentloaded")
    page.set_input_files("#file", CAT)
    while not held:
        page.wait_for_timeout(10)
    held.pop().continue_()
    claim(page, "tiger cat")

    # One that is chosen while an example is on its way, whose answer comes late.
    hold("**/example?*")
    page.get_by_role("button", name="A rocket").click()
    expect(page.locator("#status")).to_have_text("Sending rocket.jpg …")
    page.locator("#network").select_option("digits")  # of no photo yet: this stops nothing
    page.locator("#network").select_option("efficientnet-lite0")
    upload(page, CAT, "tiger cat")
    held.pop().continue_()

    # Nor does an earlier class come back under a later one.
    hold("**/explanation?*target=*")
    page.locator("#classes button").nth(1).click()
    expect(page.locator("#status")).to_contain_text("Explaining")
    expect(page.locator("#over")).to_have_css("visibility", "hidden")
    expect(page.locator("#claim")).to_have_text("")
    page.locator("#classes button").first.click()
    claim(page, "tiger cat")
    held.pop().continue_()
    page.wait_for_timeout(500)
    claim(page, "tiger cat")
    expect(page.locator("#photo")).to_have_attribute("alt", re.compile("chelsea.png"))

    # The verdict waits for whatever else is asked, and comes then.
    hold("**/verdict?*")
    page.locator("#classes button").nth(1).click()
    expect(page.locator("#verdict")).to_have_text("Testing whether this holds …")
    while not held:
        page.wait_for_timeout(10)
    page.get_by_role("tab", name="Flow").click()
    expect(page.locator("#flow section:not([hidden])")).to_have_count(1)
    page.get_by_role("tab", name="Picture").click()
    expect(page.locator("#verdict strong")).to_have_text("Holds in part")

    # What fails is said, and stands under no other name.
    page.route("**/photo?*", lambda route: route.abort(), times=1)
    page.set_input_files("#file", COFFEE)
    expect(page.locator("#status")).to_contain_text("The server cannot be reached")
    expect(page.locator("#over")).to_have_css("visibility", "hidden")


def test_a_photo_is_forgotten_with_its_page_and_sent_again(opened: Any, server: Any) -> None:
    one, two = opened(), opened()
    links = []
    for page in (one, two):
        upload(page, CAT, "tiger cat")
        page.get_by_role("tab", name="Files").click()
        address = page.locator("#downloads a").last.get_attribute("href")
        links.append(server.url + address.lstrip("/"))
    assert [httpx.get(link, timeout=60).status_code for link in links] == [200, 200]
    one.close()
    for _ in range(200):
        if httpx.get(links[0], timeout=60).status_code == 404:
            break
        two.wait_for_timeout(500)  # each is explained anew
    assert [httpx.get(link, timeout=60).status_code for link in links] == [404, 200]

    # What the server no longer keeps, the page that is still open sends again.
    httpx.post(links[1].partition("/explanation")[0] + "/forget")
    two.locator("#classes button").nth(1).click()
    expect(two.locator("#claim")).not_to_have_text("")
    expect(two.locator("#status")).to_have_text("")


@pytest.mark.parametrize(
    ("width", "height"), [(1600, 60), (60, 1600)], ids=["very wide", "very tall"]
)
def test_on_a_phone_in_the_dark(opened: Any, tmp_path: Path, width: int, height: int) -> None:
    photo = tmp_path / "<img src=x onerror=oops()>.png"  # it is a name, and no script runs
    Image.open(COFFEE).resize((width, height)).save(photo)
    page = opened(
        viewport={"width": 390, "height": 844},
        color_scheme="dark",
        has_touch=True,
        is_mobile=True,
    )
    page.set_input_files("#file", photo)
    expect(page.locator("#photo")).to_have_attribute("alt", re.compile("<img src=x"))
    box = page.locator("#stage").bounding_box()
    assert box["width"] <= 390
    assert box["height"] <= 844
    assert box["width"] / box["height"] == pytest.approx(width / height, rel=0.1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground)[:3])) < 40
    expect(page.get_by_role("button", name="Take one")).to_be_visible()
    expect(page.get_by_text("or drop or paste")).to_be_hidden()
    tops = [
        page.locator(f"#{part}").bounding_box()["y"] for part in ("answer", "photo-part", "how")
    ]
    assert tops == sorted(tops)  # the picture comes first


def test_by_keyboard_alone_and_with_names_for_all(opened: Any) -> None:
    page = opened(accept_downloads=True)
    claim(page, "espresso")

    tab_to(page, "[role=tab]")
    page.keyboard.press("End")
    expect(page.get_by_role("tabpanel", name="Files")).to_be_visible()
    tab_to(page, "#downloads a")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "coffee-espresso.png"
    page.get_by_role("tab", name="Files").focus()
    page.keyboard.press("Home")
    tab_to(page, "#opacity")
    page.keyboard.press("Home")
    expect(page.locator("#over")).to_have_css("opacity", "0")
    tab_to(page, "#hold")
    page.keyboard.down(" ")
    expect(page.locator("#over")).to_have_css("visibility", "hidden")
    page.keyboard.up(" ")
    expect(page.locator("#over")).to_have_css("visibility", "visible")
    tab_to(page, "#examples [value='chelsea.png']")
    page.keyboard.press("Enter")
    claim(page, "tiger cat")
    tab_to(page, "#classes li:nth-of-type(2) button")
    page.keyboard.press("Enter")
    expect(page.locator("#classes button").nth(1)).to_have_attribute("aria-pressed", "true")
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('img[src], button, input, select')].filter(e => "
        "!(e.alt || e.ariaLabel || e.innerText || e.textContent || e.title || e.labels?.length "
        "|| e.querySelector('img[alt]'))).map(e => e.outerHTML)"
    )
    assert nameless == []


def test_a_picture_can_be_pasted_or_taken(opened: Any) -> None:
    page = opened()
    claim(page, "espresso")
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
    claim(page, "tiger cat")
    expect(page.locator("#photo")).to_have_attribute("alt", re.compile("image.png"))

    # And taken by the webcam, which is off again afterwards.
    page.get_by_role("button", name="Take one").click()
    page.get_by_role("button", name="Take it").click()
    expect(page.locator("#photo")).to_have_attribute("alt", re.compile("camera.png"))
    expect(page.locator("#webcam")).to_be_hidden()
    tracks = "document.getElementById('live').srcObject.getTracks().map(t => t.readyState)"
    assert page.evaluate(tracks) == ["ended"]
