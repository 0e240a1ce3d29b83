"""The page prepares a photo as Python does: the same pixels, byte by byte."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from browser import open_page, serving
from photos import CAT, COFFEE, FOLDER
from torchfbi import Photo, Preprocess

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PREPARE = """async ([name, preprocess]) => {
  const { decode, prepare } = await import("/photo.js");
  const blob = await (await fetch(name)).blob();
  const { tensor, region } = prepare(await decode(new File([blob], name)), preprocess);
  const bytes = new Uint8Array(tensor.buffer);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return [btoa(text), region];
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's script that prepares, beside pictures of every kind."""
    folder = tmp_path_factory.mktemp("photos")
    shutil.copy(str(files("torchfbi.export") / "page" / "photo.js"), folder)
    (folder / "index.html").write_text('<!doctype html><link rel="icon" href="data:,">')
    for source in (CAT, COFFEE, FOLDER / "rocket.jpg"):
        shutil.copy(source, folder)
    cat = Image.open(CAT)
    cat.resize((900, 90)).save(folder / "wide.png")
    cat.resize((40, 2000)).save(folder / "thin.png")
    cat.convert("L").save(folder / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: lies on its side
    cat.save(folder / "turned.jpg", exif=turned, quality=90)
    return folder


@pytest.fixture(scope="module")
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with serving(folder) as url:
        yield open_page(browser, url)[0]


CASES = [
    ("chelsea.png", Preprocess(256, 224, interpolation="bicubic", **IMAGENET)),
    ("coffee.png", Preprocess(256, 224, **IMAGENET)),
    ("rocket.jpg", Preprocess(256, 224, **IMAGENET)),
    ("turned.jpg", Preprocess(232, 224, **IMAGENET)),
    ("wide.png", Preprocess(256, (128, 224), **IMAGENET)),
    ("wide.png", Preprocess(256, 224, fit="stretch", **IMAGENET)),
    ("thin.png", Preprocess(64, 48, interpolation="bicubic", **IMAGENET)),
    ("grey.png", Preprocess(65, 64, channels="BGR", **IMAGENET)),
    ("coffee.png", Preprocess(28, 28, (0.1307,), (0.3081,), channels="L", fit="stretch")),
]


@pytest.mark.parametrize(("name", "preprocess"), CASES)
def test_the_same_pixels_as_in_python(
    page: Page, folder: Path, name: str, preprocess: Preprocess
) -> None:
    expected, region = preprocess(Photo.read(folder / name))
    plain = {
        **vars(preprocess),
        "crop": list(preprocess.size),
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }
    text, seen = page.evaluate(PREPARE, [name, plain])
    found = np.frombuffer(base64.b64decode(text), np.float32).reshape(expected.shape)
    apart = np.abs(found - expected.numpy()) * np.array(preprocess.std)[:, None, None] * 255
    # Of this one photo Pillow 12 rounds some pixels to the next grey level, Pillow 13 does not.
    assert apart.max() <= (1.001 if name == "thin.png" else 0)
    assert [seen[side] for side in region._fields] == pytest.approx(list(region))
