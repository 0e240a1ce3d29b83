"""The documentation site: built strictly, and nothing in it asks anybody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent

FETCHED = {"src", "srcset", "poster", "data"}
"""Attributes whose address a browser fetches on its own."""


class Page(HTMLParser):
    """What a page links to, what it fetches, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.fetched, self.anchors = list[str](), list[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        self.fetched += [value for name, value in values.items() if name in FETCHED]
        if "href" in values:
            canonical = values.get("rel") in ("canonical", "prev", "next")
            kind = self.fetched if tag == "link" and not canonical else self.links
            kind.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {
        path: Page(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"
    }


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    for path, page in pages.items():
        for address in page.fetched:
            assert not urlsplit(address).netloc, f"{path.name} fetches {address}"
    for sheet in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//[^)\"']+", sheet.read_text())
        assert not found, f"{sheet.name}: {found}"


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Within the site to a file and an anchor of it; to the outside at least to an address."""
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                assert parts.scheme in ("https", "mailto"), f"{path}: {link}"
                assert re.fullmatch(r"[\w.-]+\.\w+", parts.netloc) or parts.path, f"{path}: {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target in pages and parts.fragment != "__skip":
                anchors = pages[target].anchors
                assert unquote(parts.fragment) in anchors, f"{path.relative_to(site)}: {link}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_repositorys_own_pages_point_at_files(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text())
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_formulas_are_drawn(site: Path) -> None:
    method = (site / "method" / "index.html").read_text()
    assert method.count('role="img"') > 30
    assert "arithmatex" not in method
    assert "$" not in re.sub(r"<(pre|code|script|style|svg).*?</\1>", "", method, flags=re.DOTALL)
