"""The guard that the tests of pages rely on sees what it should see."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from browser import open_page, serving

PAGE = """<!doctype html><link rel="icon" href="data:,"><h1>Here</h1>
<script>fetch("https://example.com/far").catch(() => {}); oops()</script>"""


def test_the_guard_reports_requests_to_others_and_exceptions(
    browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    with serving(tmp_path) as url:
        page, wrong = open_page(browser, url)
        page.wait_for_load_state("networkidle")
    assert page.inner_text("h1") == "Here"
    assert any(note == "request to https://example.com/far" for note in wrong)
    assert any(note.startswith("exception: oops") for note in wrong)
