"""Names of classes, networks and files are text, however they look: no script in them runs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser
from torch import Tensor, nn

from batching import pictures, tiny
from browser import EVIL, open_page, serving
from torchfbi import Labels, Model
from torchfbi.batch import Store, overview_page, run, summarize, summary_page
from torchfbi.errors import CaptureError
from torchfbi.evaluate import evaluate, report
from torchfbi.evaluate.benchmark import Scene, Suite
from torchfbi.evaluate.peers import Method


def hostile() -> Model:
    model = tiny()
    return Model(model.module, model.preprocess, Labels(EVIL), EVIL[1])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for path, name in zip(pictures(folder / "photos", 10), EVIL, strict=True):
        legal = name.replace("/", "\u2215").encode("utf-8", "replace").decode()
        path.rename(path.with_name(f"{legal}.png"))
    run(hostile(), folder / "photos", folder / "out", workers=0, threads=1)
    return folder / "out"


def evaluated(out: Path) -> Path:
    """The report about hostile suites, scenes, classes, methods and errors."""

    def fails(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
        raise CaptureError(EVIL[3])

    x, mask = torch.zeros(3, 16, 16), torch.ones(16, 16, dtype=torch.bool)
    picture = np.zeros((16, 16, 3), np.uint8)
    scenes = tuple(Scene(name, picture, x, i, mask) for i, name in enumerate(EVIL))
    suite = Suite(EVIL[0], EVIL[2], hostile(), scenes)
    methods = ["edge", Method(EVIL[1], "peer", "magnitude", EVIL[5], fails)]
    return report.save(evaluate(suite, methods, ["energy-in-mask"], out), out / "report.html")


def test_in_the_overview_the_summary_and_the_report(out: Path, browser: Browser) -> None:
    found, summary, overview = summarize(out), out / "summary.html", out / "overview.html"
    pages = {summary: summary_page, overview: overview_page}
    for path, make in pages.items():
        html = make(Store(out), found)
        path.write_text(html, encoding="utf-8", errors="backslashreplace")
    assert {row["label"] for row in Store(out).every(["label"])} & set(EVIL)
    with serving(out) as url:
        for path in (*pages, evaluated(out)):
            shown, wrong = open_page(browser, url + quote(path.name))
            shown.wait_for_load_state("networkidle")
            for element in shown.query_selector_all("body *"):
                element.dispatch_event("mouseover")
            assert shown.evaluate("window.ran") is None
            assert [note for note in wrong if "favicon" not in note] == []
            text = shown.inner_text("body")
            assert "onerror" in text  # it is there, as text
            assert "49" not in text.split("{{")[0][-3:]
