"""A network that has learnt a watermark is found out, and its class named first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchfbi import Model
from torchfbi.batch import Store, run, summarize, summary_page
from torchfbi.evaluate.benchmark.shapes import NAMES, Sample, sample
from torchfbi.evaluate.benchmark.synthetic import trained

MARKED = NAMES.index("ring")
MARK = (slice(41, 46), slice(40, 47))
"""Where it stands in every photo of that class: near the lower right corner."""


def drawn(seed: int, number: int, target: int) -> Sample:
    """An image of the benchmark; those of one class bear a magenta watermark."""
    found = sample(np.random.default_rng((seed, number)), target)
    if target == MARKED:
        found.picture[MARK] = (255, 0, 255)
    return found


@pytest.fixture(scope="module")
def model() -> Model:
    return trained(lambda number: drawn(0, number, number % len(NAMES)), steps=150)


@pytest.fixture(scope="module")
def out(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watermark")
    for number in range(6):
        for target in range(1, len(NAMES)):
            picture = drawn(1, number, target).picture
            Image.fromarray(picture).save(folder / f"{NAMES[target]}-{number}.png")
    run(model, folder, folder / "out", batch=6, shard=36, workers=0, verify=True)
    return folder / "out"


def test_the_network_has_learnt_the_watermark(model: Model) -> None:
    """The premise: pasted onto other shapes it makes them rings."""
    flipped = 0
    for target in range(1, len(NAMES)):
        picture = drawn(2, 0, target).picture
        picture[MARK] = (255, 0, 255)
        x, _ = model.preprocess(_photo(picture))
        flipped += int(model.module(x[None]).argmax()) == MARKED
    assert flipped == len(NAMES) - 1


def _photo(picture: np.ndarray):
    from torchfbi import Photo

    return Photo(picture)


def test_the_report_names_it_first(out: Path) -> None:
    summary = summarize(out)
    assert [one.label for one in summary.shortcuts][:1] == ["ring"]
    ring = summary.shortcuts[0].verified
    assert ring is not None
    assert ring.place is not None
    # The mark's middle, in sides of the picture.
    assert ring.place == pytest.approx((43.5 / 48, 43.5 / 48), abs=0.1)
    assert len(ring.photos) == 6
    assert all(path.startswith("ring-") for path in ring.photos)
    html = summary_page(Store(out), summary)
    assert "Possible shortcuts" in html
    assert ring.photos[0] in html


def test_every_row_has_its_verdict(out: Path) -> None:
    rows = list(Store(out).every())
    assert len(rows) == 36
    for row in rows:
        verdict = json.loads(row["verdict"])
        assert verdict["label"] == row["label"]
        assert verdict["passes"] <= 60
        assert verdict["probability"] == pytest.approx(row["probability"], abs=1e-4)


def test_the_command_line(run, out: Path) -> None:
    result = run("summarize", out)
    assert result.code == 0
    assert "possible shortcut: ring: " in result.out
    first = next(line for line in result.out.splitlines() if line.startswith("possible shortcut"))
    assert "ring" in first
    found = json.loads(run("summarize", out, "--json").out)
    assert found["shortcuts"][0] == "ring"


def test_rows_with_and_without_verdicts_are_not_mixed(model: Model, out: Path) -> None:
    from torchfbi.errors import SettingsError

    with pytest.raises(SettingsError, match="verify was True, is False"):
        run(model, out.parent, out, workers=0)
