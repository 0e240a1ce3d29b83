"""Names of classes, networks and files are text, however they look: no script in them runs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from batching import pictures, tiny
from browser import open_page, serving
from torchfbi import Labels, Model
from torchfbi.batch import Store, overview_page, run, summarize, summary_page

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


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for path, name in zip(pictures(folder / "photos", 10), EVIL, strict=True):
        legal = name.replace("/", "\u2215").encode("utf-8", "replace").decode()
        path.rename(path.with_name(f"{legal}.png"))
    model = tiny()
    hostile = Model(model.module, model.preprocess, Labels(EVIL), EVIL[1])
    run(hostile, folder / "photos", folder / "out", workers=0, threads=1)
    return folder / "out"


def test_in_the_overview_and_in_the_summary(out: Path, browser: Browser) -> None:
    found, summary, overview = summarize(out), out / "summary.html", out / "overview.html"
    pages = {summary: summary_page, overview: overview_page}
    for path, make in pages.items():
        html = make(Store(out), found)
        path.write_text(html, encoding="utf-8", errors="backslashreplace")
    assert {row["label"] for row in Store(out).every(["label"])} & set(EVIL)
    with serving(out) as url:
        for path in pages:
            shown, wrong = open_page(browser, url + quote(path.name))
            shown.wait_for_load_state("networkidle")
            for element in shown.query_selector_all("body *"):
                element.dispatch_event("mouseover")
            assert shown.evaluate("window.ran") is None
            assert [note for note in wrong if "favicon" not in note] == []
            text = shown.inner_text("body")
            assert "onerror" in text  # it is there, as text
            assert "49" not in text.split("{{")[0][-3:]
