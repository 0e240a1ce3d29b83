"""The screenshot in docs/serve.md, and how long the page takes: ``make screenshot``.

Starts ``torchfbi serve`` as a user would, uploads photos in a browser, chooses other classes, and
prints the seconds until each is drawn. Needs a quiet machine.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from browser import chromium, open_page
from photos import CAT, COFFEE
from served import served

HERE = Path(__file__).parent
TIMES = 5


_DRAWN = """title => new Promise((done) => {
  const look = () => {
    const claim = document.querySelector("#answer.answered #claim");
    const there = claim?.textContent.includes(title) && document.getElementById("painted").complete;
    there ? done() : requestAnimationFrame(look);
  };
  look();
})"""


def drawn(page: Page, title: str, start: float) -> float:
    """Seconds until the explanation of a class is there."""
    page.evaluate(_DRAWN, title)  # looks at every frame
    return time.perf_counter() - start


def main() -> None:
    """Print the medians and write serve.png."""
    with served() as (url, _), chromium() as browser:
        size: Any = {"width": 1270, "height": 860}
        page, wrong = open_page(browser, url, viewport=size)
        drawn(page, "espresso", 0.0)
        uploads, changes = [], []
        for _ in range(TIMES):
            for photo, first, second in (
                (CAT, "tiger cat", "Egyptian cat"),
                (COFFEE, "espresso", "tea cup"),
            ):
                start = time.perf_counter()
                page.set_input_files("#file", photo)
                uploads.append(drawn(page, first, start))
                start = time.perf_counter()
                page.locator("#classes button").filter(has_text=second).first.click()
                changes.append(drawn(page, second, start))
        page.locator("#classes button").first.click()
        drawn(page, "espresso", 0.0)
        page.locator("#verdict strong").wait_for(timeout=0)
        page.screenshot(path=HERE / "serve.png")
        page.context.close()
    assert not wrong, wrong
    for what, seconds in (("upload", uploads), ("another class", changes)):
        print(
            f"{what}: first {seconds[0]:.2f} s, median {statistics.median(seconds):.2f} s, "
            f"slowest {max(seconds):.2f} s"
        )


if __name__ == "__main__":
    main()
