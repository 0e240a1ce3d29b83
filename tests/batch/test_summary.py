"""Places of evidence by hand, and a network that has learnt a watermark found out."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from torchfbi import Labels, Model, Preprocess, Settings, atomic
from torchfbi.batch import (
    Store,
    Summary,
    changes,
    draw,
    overview_page,
    run,
    summarize,
    summary_page,
)
from torchfbi.batch.evidence import BINS, apart, centre, middle, profile, rim_share
from torchfbi.batch.figures import explanation
from torchfbi.batch.summary import modified_z
from torchfbi.errors import FileFormatError

SIDE = 32


class Learnt(nn.Module):
    """Says "cup" for red, which is the object, and for green, which is somebody's mark; else
    "nothing"."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, 2, 1, bias=False)
        self.colours.weight.data = torch.tensor([[2.0, -1, -1], [-1, 2, -1]])[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        red, green = torch.relu(self.colours(x)).mean((2, 3)).unbind(1)
        return torch.stack([10 * (red + green), torch.full_like(red, 0.05)], 1)


MODEL = Model(
    Learnt().eval(), Preprocess(SIDE, SIDE, (0,) * 3, (1,) * 3), Labels(["cup", "nothing"]), "hand"
)


def picture(colour: tuple[int, int, int], x: int, y: int, size: int = 8) -> Image.Image:
    pixels = np.full((SIDE, SIDE, 3), 90, np.uint8)
    pixels[y : y + size, x : x + size] = colour
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cups near the middle, two pictures whose only evidence is a mark in the corner, three
    of nothing, one damaged file."""
    folder = tmp_path_factory.mktemp("summary")
    for number in range(12):
        picture((250, 20, 20), 11 + number % 3, 12 + number % 2).save(folder / f"cup-{number}.png")
    for number in range(2):
        picture((20, 250, 20), 1, 26, 5).save(folder / f"marked-{number}.png")
    for number in range(3):
        picture((90, 90, 90), 0, 0).save(folder / f"nothing-{number}.png")
    (folder / "zero.png").write_bytes(b"")
    run(MODEL, folder, folder / "out", settings=Settings.plain(), shard=7, batch=4, workers=0)
    return folder / "out"


@pytest.fixture(scope="module")
def summary(out: Path) -> Summary:
    return summarize(out)


def test_the_marked_pictures_stray_and_no_other(summary: Summary) -> None:
    cups, nothing = summary.classes
    assert (summary.images, summary.failed) == (18, 1)
    assert (cups.label, cups.images, cups.empty) == ("cup", 14, 0)
    assert (nothing.label, nothing.images) == ("nothing", 3)
    assert [stray.path for stray in cups.strays] == ["marked-0.png", "marked-1.png"]
    # The mark's centre is (3.5, 28.5) pixels. The median one is (16, 17): of 14 the seventh and
    # eighth from the left are at 16, and from the top at 17.
    stray = cups.strays[0]
    assert stray.right == pytest.approx((3.5 - 16) / SIDE, abs=0.02)
    assert stray.down == pytest.approx((28.5 - 17) / SIDE, abs=0.02)
    assert stray.distance == pytest.approx((12.5 + 11.5) / SIDE, abs=0.02)
    assert stray.where == "39% further left, 36% further down"
    assert stray.fraction == pytest.approx(25 / SIDE**2)
    assert nothing.strays == ()


def test_the_mean_support_and_the_sparsity(summary: Summary) -> None:
    cups = summary.classes[0]
    expected = np.zeros((SIDE, SIDE))
    for number in range(12):
        x, y = 11 + number % 3, 12 + number % 2
        expected[y : y + 8, x : x + 8] += 1 / 14
    expected[26:31, 1:6] += 2 / 14
    np.testing.assert_allclose(cups.support, expected)
    assert cups.fraction == pytest.approx((64 / SIDE**2,) * 3)
    assert cups.rim == pytest.approx(2 / 14 * 16 / 25, abs=0.001)  # of a mark, within 3 pixels


def test_the_profile_of_a_block_by_hand() -> None:
    evidence = np.zeros((8, 16))
    evidence[2:4, 4:8] = 3.0
    across, down = profile(evidence)
    np.testing.assert_allclose(across[7::8], [0, 1, 1, 1], atol=1e-6)  # after 4, 8, 12, 16 columns
    np.testing.assert_allclose(across[11], 0.5, atol=1e-6)
    np.testing.assert_allclose(down[7::8], [0, 1, 1, 1], atol=1e-6)
    assert centre(np.array([across, down])) == pytest.approx((6 / 16, 3 / 8), abs=0.5 / BINS)
    assert profile(np.zeros((8, 8))) is None


def test_apart_is_the_earth_movers_distance_along_the_axes() -> None:
    rng = np.random.default_rng(0)
    for dx, dy in ((0, 0), (4, 0), (0, -3), (10, 7)):
        evidence = np.zeros((64, 64))
        evidence[20:40, 20:40] = rng.random((20, 20))
        moved = np.roll(evidence, (dy, dx), (0, 1))
        here, there = profile(evidence), profile(moved)
        assert apart(there[None], here)[0] == pytest.approx((abs(dx) + abs(dy)) / 64, abs=1e-3)
    corners = np.zeros((2, 64, 64))
    corners[0, 0, 0] = corners[1, -1, -1] = 1
    assert apart(profile(corners[1])[None], profile(corners[0]))[0] == pytest.approx(2, abs=0.1)


def test_strays_do_not_move_the_middle_nor_hide_each_other() -> None:
    block = np.zeros((32, 32))
    block[10:20, 10:20] = 1
    usual = profile(block)
    strange = profile(np.roll(block, (-9, 12), (0, 1)))
    places = np.array([usual] * 6 + [strange] * 4)
    np.testing.assert_array_equal(middle(places), usual)
    # Iglewicz and Hoaglin: median 2, deviations 1 1 0 0 1 98, MAD 1.
    np.testing.assert_allclose(
        modified_z(np.array([1.0, 1, 2, 2, 3, 100])), 0.6745 * np.array([-1, -1, 0, 0, 1, 98])
    )
    assert modified_z(np.array([1.0, 1, 1, 5])).tolist() == [0, 0, 0, np.inf]


def test_evidence_at_the_rim() -> None:
    assert rim_share(np.ones((20, 20))) == pytest.approx(0.36)
    inside = np.zeros((20, 20))
    inside[9:11, 9:11] = 1
    assert rim_share(inside) == 0


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.images, self.text, self.tags = 0, "", []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            kinds = ("data:image/png;base64,", "data:image/webp;base64,")
            assert dict(attrs)["src"].startswith(kinds)
            assert dict(attrs)["alt"]
            self.images += 1

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_classes_and_strays_and_needs_nothing_else(
    out: Path, summary: Summary
) -> None:
    page = Page(summary_page(Store(out), summary))
    assert page.images == 2 + 2
    assert "script" not in page.tags
    assert "link" not in page.tags
    for text in ("marked-1.png", "39% further left", "14 images", "1 failed"):
        assert text in page.text


def test_the_overview_has_every_image_and_what_needs_a_look_first(
    out: Path, summary: Summary
) -> None:
    html = overview_page(Store(out), summary)
    page = Page(html)
    assert page.images == 17
    assert "zero.png is empty" in page.text
    order = [html.index(name) for name in ("zero.png is empty", "marked-0.png", "cup-0.png")]
    assert order == sorted(order)


def test_what_moved_between_two_runs(out: Path, tmp_path: Path) -> None:
    """Mended, the network no longer takes the mark for a cup."""
    mended = Learnt().eval()
    mended.colours.weight.data[1] = 0
    options = {"settings": Settings.plain(), "workers": 0}
    run(replace(MODEL, module=mended), out.parent, tmp_path, **options)
    found = changes(out, tmp_path)
    assert (found.both, found.new, found.gone) == (18, 0, 0)
    assert [(one.path, one.relabelled) for one in found.moved] == [
        ("marked-0.png", True),
        ("marked-1.png", True),
    ]
    assert not changes(out, out).moved


def test_rows_become_explanations_and_figures(out: Path) -> None:
    settings = Settings.plain()
    row = next(iter(Store(out).every()))
    found = explanation(row, MODEL, settings)
    assert found.title().startswith("cup (")
    assert found.density.item() == pytest.approx(row["fraction"])
    figure = next(draw(Store(out), MODEL, settings))
    written = figure.stat().st_mtime_ns
    with Image.open(figure) as drawn:
        assert drawn.format == "PNG"
    both = list(islice(draw(Store(out), MODEL, settings), 2))
    assert [path.name for path in both] == ["000000-cup-0.png", "000001-cup-1.png"]
    assert both[0].stat().st_mtime_ns == written  # it is not drawn again


def test_the_command_line(run, out: Path, tmp_path: Path) -> None:
    result = run("summarize", out)
    assert result.code == 0
    assert "marked-0.png: 0.75 from cup, 39% further left, 36% further down" in result.out
    found = json.loads(run("summarize", out, "--json").out)
    assert found["classes"][0]["strays"][0]["path"] == "marked-0.png"
    assert found["files"] == [str(out / "summary.html"), str(out / "overview.html")]
    assert run("summarize", tmp_path).code == 2
    assert "no rows" in run("summarize", tmp_path).err


def test_a_page_that_cannot_be_written_is_named_and_the_table_is_there(
    run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    result = run("summarize", out)
    assert result.code == 2
    assert "strays" in result.out
    assert result.err.strip() == f"torchfbi: {out / 'summary.html'}: No space left on device"


def test_a_damaged_shard_is_named(out: Path, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.path(0).parent.mkdir()
    store.path(0).write_bytes(Store(out).path(0).read_bytes()[:500])
    with pytest.raises(FileFormatError, match=r"000000\.parquet is damaged"):
        summarize(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("support", {"bytes": b"GIF89a", "path": None}, "support is damaged"),
        ("support", None, "support is damaged"),
        ("values", [1.0] * 5, "do not fit"),
        ("values", None, "do not fit"),
    ],
)
def test_foreign_rows_are_refused(
    out: Path, tmp_path: Path, column: str, value: object, message: str
) -> None:
    rows = list(Store(out).every())[:1]
    rows[0][column] = value
    Store(tmp_path).write(0, rows)
    with pytest.raises(FileFormatError, match=message):
        summarize(tmp_path)


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"index": [0]}), tmp_path / "rows/0.parquet")
    with pytest.raises(FileFormatError, match="no shard of torchfbi"):
        summarize(tmp_path)
