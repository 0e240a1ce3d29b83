"""Evaluations: numbers as the metrics give them, nothing lost by a stop, a page that is safe."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from photos import CAT
from torchfbi import Settings, metrics
from torchfbi.errors import CaptureError, SettingsError
from torchfbi.evaluate import Progress, Table, evaluate, peers, ranking, report
from torchfbi.evaluate.benchmark import Scene, Suite, grids, load_suite, photos
from torchfbi.evaluate.compare import compare
from torchfbi.evaluate.peers import Method
from torchfbi.evaluate.registry import PHOTOS
from torchfbi.method.evidence import support
from torchfbi.models import Labels, Model
from torchfbi.models.preprocess import Preprocess

METHODS = ("fbi", "edge", "random")
METRICS = ("energy-in-mask", "top-area", "pointing", "class-correlation", "support-fraction")


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite("digits", count=5)


@pytest.fixture(scope="module")
def table(suite: Suite) -> Table:
    return evaluate(suite, METHODS, METRICS, batch=2)


def test_the_means_are_those_of_the_metrics(suite: Suite, table: Table) -> None:
    x = torch.stack([scene.x for scene in suite.scenes])
    target = torch.tensor([scene.target for scene in suite.scenes])
    mask = torch.stack([scene.mask for scene in suite.scenes])
    for method in METHODS:
        maps = peers.maps(method, suite.model.module, x, target)
        expected = {
            "energy-in-mask": metrics.energy_in_mask(maps, mask),
            "top-area": metrics.top_area_in_mask(maps, mask, fill=False),
            "support-fraction": support(maps).double().mean((1, 2)),
        }
        for metric, values in expected.items():
            entry = table.entry("digits", method, metric)
            assert entry.mean == pytest.approx(values.mean().item(), rel=1e-4)
            interval = metrics.bootstrap_interval(values)
            assert (entry.low, entry.high) == pytest.approx(interval[1:], rel=1e-3)
            assert entry.scenes == 5


def test_ranks_follow_what_is_good(table: Table) -> None:
    energy = {name: table.entry("digits", name, "energy-in-mask") for name in METHODS}
    ordered = sorted(METHODS, key=lambda name: -energy[name].mean)
    assert [energy[name].rank for name in ordered] == [1, 2, 3]
    assert energy[ordered[0]].best
    # A control's map does not depend on the class: the worst there can be.
    assert table.entry("digits", "edge", "class-correlation").mean == pytest.approx(1)
    assert not table.entry("digits", "edge", "class-correlation").best
    assert table.entry("digits", "fbi", "support-fraction").rank is None


def test_what_was_finished_is_not_done_again(suite: Suite, tmp_path: Path) -> None:
    """Stopped at any byte of the file, the same call ends with the same table."""
    first = evaluate(suite, METHODS, METRICS, tmp_path, batch=2)
    rows = tmp_path / "rows.jsonl"
    whole = rows.read_bytes()
    for kept in (0.97, 0.5, 0.2):
        rows.write_bytes(whole[: int(len(whole) * kept)])
        again = evaluate(suite, METHODS, METRICS, tmp_path, batch=2)
        assert again.entries == first.entries
    assert measured(rows) == sorted(line for line in whole.splitlines() if b'"metric"' in line)


def measured(rows: Path) -> list[bytes]:
    return sorted(line for line in rows.read_bytes().splitlines() if b'"metric"' in line)


def test_a_stop_in_the_middle_keeps_what_was_finished(
    suite: Suite, table: Table, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(step: Progress) -> None:
        if step.done == 7:
            raise StopError

    with pytest.raises(StopError):
        evaluate(suite, METHODS, METRICS, tmp_path, stop, batch=2)
    assert len(measured(tmp_path / "rows.jsonl")) >= 7
    assert evaluate(suite, METHODS, METRICS, tmp_path, batch=2).entries == table.entries


def test_results_of_other_scenes_are_not_mixed(suite: Suite, tmp_path: Path) -> None:
    evaluate(suite, ["edge"], ["energy-in-mask"], tmp_path)
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path))):
        evaluate(load_suite("digits", count=4), ["edge"], ["energy-in-mask"], tmp_path)


def failing(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    raise CaptureError("this network is not for me.")


def test_a_method_that_fails_is_a_row_with_its_reason(suite: Suite) -> None:
    broken = Method("broken", "peer", "magnitude", "nobody", failing)
    found = evaluate(suite, ["edge", broken], ["energy-in-mask"])
    assert "not for me" in found.entry("digits", "broken", "energy-in-mask").error
    assert found.entry("digits", "edge", "energy-in-mask").scenes == 5
    assert [failure.method for failure in found.failures] == ["broken"]
    assert "not for me" in report.html(found)


def test_csv_and_json_hold_every_entry(table: Table, tmp_path: Path) -> None:
    table.save(tmp_path)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    entries = json.loads((tmp_path / "table.json").read_text())["entries"]
    assert len(rows) == len(entries) == len(METHODS) * len(METRICS)
    for row, entry in zip(rows, entries, strict=True):
        assert (row["method"], row["metric"]) == (entry["method"], entry["metric"])
        assert float(row["mean"]) == pytest.approx(entry["mean"])
    assert {row["family"] for row in rows if row["method"] == "edge"} == {"control"}


def test_the_page_loads_nothing_and_escapes_everything(suite: Suite) -> None:
    scene = suite.scenes[0]
    evil = Scene("<script>alert(1)</script>", scene.picture, scene.x, scene.target, scene.mask)
    named = Suite("evil", "<b>bold</b> & co", suite.model, (evil,))
    page = report.html(evaluate(named, ["fbi", "edge"], ["energy-in-mask"]))
    assert "<script" not in page
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "url(" not in page
    assert all(re.search(r'\balt="', tag) for tag in re.findall(r"<img[^>]*>", page))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "grad-camm"], "grad-cam"),
        (["--metrics", "energy"], "no metric 'energy'"),
        (["--suites", "digitz"], "no suite 'digitz'"),
        (["empty"], "empty"),
        (["--suites", "photos"], "give DIR"),
        (["empty", "--suites", "photos", "digits"], "no other suite"),
        (["empty", "--suites", "photos"], "holds no photo"),
    ],
)
def test_what_is_unknown_is_one_line(run, tmp_path: Path, arguments: list[str], message) -> None:
    (tmp_path / "empty").mkdir()
    result = run("evaluate", *arguments, "-o", "out")
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) <= 3


def test_the_command_writes_table_and_page(run, tmp_path: Path) -> None:
    command = ("evaluate", "--suites", "digits", "--methods", "fbi", "edge", "--metrics")
    result = run(*command, "energy-in-mask", "pointing", "--count", 3, "-o", "out", "--json")
    assert result.code == 0
    assert len(json.loads(result.out)["entries"]) == 4
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "rows.jsonl",
        "table.csv",
        "table.json",
        "report.html",
    }


def test_compare_draws_every_image_for_every_target(run, tmp_path: Path) -> None:
    methods = ("--methods", "fbi", "edge")
    result = run("compare", CAT, *methods, "--target", "top1,espresso", "-o", "out", "--json")
    assert result.code == 0, result.err
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert "espresso" in json.dumps(rows)
    assert "fbi" in result.out
    assert (tmp_path / "out" / "compare.png").stat().st_size > 10_000


def test_compare_takes_a_tau_that_fits_and_says_so(run) -> None:
    result = run("compare", CAT, "--methods", "fbi-paper", "--json", "--dpi", "40")
    ((cell,),) = (row["methods"] for row in json.loads(result.out)["rows"])
    assert cell["support"] > 0
    assert f"nothing exceeds its tau in {CAT.name}: {cell['tau']:g} was taken" in result.err
    chosen = compare("efficientnet-lite0", CAT, [Settings.paper(tau=9.0)])
    assert not chosen.rows[0].cells[0].map.any()  # that is no preset's


def test_compare_names_an_unknown_method(run) -> None:
    result = run("compare", CAT, "--methods", "gradcam")
    assert result.code == 2
    assert "grad-cam" in result.err


# Photos


class Colour(nn.Module):
    """Which of four pure colours is in the middle of the picture; other places count a little."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 4, 1, bias=False), nn.Linear(4, 4)
        colours = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1]])
        with torch.no_grad():
            self.features.weight.copy_(colours[:, :, None, None])
            self.head.weight.copy_(20 * torch.eye(4))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        seen = self.features(x).relu()
        return self.head(seen.mean((2, 3)))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colours")
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0)}
    for name, colour in colours.items():
        (root / name).mkdir()
        for number in range(3):
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[8 + 4 * number : 16 + 4 * number, 8:20] = np.multiply(colour, 255)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def colour_model() -> Model:
    preprocess = Preprocess(resize=32, crop=32, mean=(0,) * 3, std=(1,) * 3, fit="stretch")
    labels = Labels(["red", "green", "blue", "yellow"])
    return Model(Colour().eval().requires_grad_(False), preprocess, labels, "colours")


@pytest.fixture(scope="module")
def of_photos(coloured: Path, colour_model: Model) -> list[Suite]:
    alone = photos(coloured, colour_model, 8)
    return [alone, replace(grids(colour_model, 2, 2, tiles=alone.scenes), name="photos-grid2")]


JUDGED = ("fbi", "input-x-gradient", "random", "fbi-other-class", "oracle")


@pytest.fixture(scope="module")
def judged(of_photos: list[Suite], tmp_path_factory: pytest.TempPathFactory) -> Table:
    return evaluate(of_photos, JUDGED, PHOTOS, tmp_path_factory.mktemp("out"), batch=5)


def test_gains_are_those_of_the_metrics(of_photos: list[Suite], judged: Table) -> None:
    scenes = of_photos[0].scenes
    x = torch.stack([scene.x for scene in scenes])
    target = torch.tensor([scene.target for scene in scenes])
    module = of_photos[0].model.module
    maps = peers.scores("input-x-gradient", module, x, target)

    def gain(kind: Any) -> Tensor:
        return metrics.symmetric_relevance_gain(
            lambda images: module(images).softmax(1),
            x,
            target,
            maps,
            metrics.patches(32, 32, 1),
            metrics.removal(x, kind),
        )

    blur, mean = gain("blur"), gain("mean")
    values = {name: judged.values["photos", "input-x-gradient", name] for name in PHOTOS[:3]}
    torch.testing.assert_close(values["srg-blur"], blur, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(values["srg-mean"], mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(values["srg"], (blur + mean) / 2, rtol=1e-5, atol=1e-6)


def test_who_knows_the_colour_is_ahead_of_the_controls(judged: Table) -> None:
    places = ranking.ranking(judged, "photos", "srg")
    names = [ranked.method.name for ranked in places]
    assert len(names) == len(JUDGED)
    assert names.index("input-x-gradient") < names.index("random")
    means = [ranked.entry.mean for ranked in places]
    assert means == sorted(means, reverse=True)
    for ranked in places:
        name = ranked.method.name
        assert (ranked.ahead is None) == (name == "fbi")
        if ranked.ahead is not None:
            mine, theirs = (judged.values["photos", n, "srg"] for n in ("fbi", name))
            assert ranked.ahead == metrics.bootstrap_difference(mine, theirs)
    assert ranking.headline(judged, "photos") == "srg"
    assert ranking.headline(judged, "photos-grid2") == "srg"


def test_two_classes_in_one_picture(judged: Table) -> None:
    """Noise tells no classes apart; the input times the gradient does."""
    told = judged.entry("photos-grid2", "input-x-gradient", "contrastive-srg")
    noise = judged.entry("photos-grid2", "random", "contrastive-srg")
    assert told.scenes == 4
    assert told.mean > 3 * abs(noise.mean)
    with pytest.raises(KeyError):
        judged.entry("photos", "fbi", "contrastive-srg")


def test_the_curves_are_kept_and_read_again(of_photos: list[Suite], tmp_path: Path) -> None:
    asked = ("input-x-gradient", "random"), ("srg-blur", "kept-10")
    first = evaluate(of_photos[0], *asked, tmp_path, batch=3)
    again = evaluate(of_photos[0], *asked, tmp_path, batch=3)
    for method in asked[0]:
        curves, read = (table.curves["photos", method, "blur"] for table in (first, again))
        assert curves.insertion.shape == (8, 21)
        for one, other in zip(curves, read, strict=True):
            assert torch.equal(one, other)
        gain = first.values["photos", method, "srg-blur"]
        torch.testing.assert_close(curves.gain(), gain)
        assert torch.equal(curves.insertion[:, 2], first.values["photos", method, "kept-10"])
    whole = report.html(again)
    assert whole.count("Insertion and deletion curves") == 1
    assert "could be chance" not in report.html(evaluate(of_photos[0], ["edge"], ["gini"]))


def test_the_command_on_photos(run, coloured: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom torchfbi import Labels, Model, Preprocess\n"
        "def colours():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                        nn.Flatten(), nn.Linear(4, 4))\n"
        "    with torch.no_grad():\n"
        "        net[0].weight.copy_(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1],\n"
        "                                          [1, 1, -1]])[:, :, None, None])\n"
        "        net[0].bias.zero_(), net[4].bias.zero_(), net[4].weight.copy_(20 * torch.eye(4))\n"
        "    how = Preprocess(32, 32, (0,) * 3, (1,) * 3, fit='stretch')\n"
        "    return Model(net.eval(), how, Labels(['red', 'green', 'blue', 'yellow']), 'c')\n"
    )
    command = ("evaluate", coloured, "--model", "net.py:colours", "--suites", "photos")
    options = ("--methods", "input-x-gradient", "random", "--metrics", "srg-blur,contrastive-srg")
    result = run(*command, *options, "--count", 8, "-o", "out")
    assert result.code == 0, result.err
    assert "contrastive-srg, controls and all" in result.out
    assert "random (control)" in result.out
    assert (tmp_path / "out" / "curves-photos-blur.png").stat().st_size > 5000
