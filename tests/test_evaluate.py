"""Evaluations: numbers as the metrics give them, nothing lost by a stop, a page that is safe."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from photos import CAT
from torchfbi import metrics, peers
from torchfbi.benchmark import Scene, Suite, load_suite
from torchfbi.errors import CaptureError, SettingsError
from torchfbi.evaluate import Step, Table, evaluate, report
from torchfbi.peers import Method

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
            "support-fraction": metrics.support_fraction(maps),
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


def test_what_was_finished_is_not_done_again(suite: Suite, table: Table, tmp_path: Path) -> None:
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


def test_a_stop_in_the_middle_keeps_what_was_finished(suite: Suite, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(step: Step) -> None:
        if step.done == 7:
            raise StopError

    with pytest.raises(StopError):
        evaluate(suite, METHODS, METRICS, tmp_path, stop, batch=2)
    assert len(measured(tmp_path / "rows.jsonl")) >= 7
    resumed = evaluate(suite, METHODS, METRICS, tmp_path, batch=2)
    fresh = evaluate(suite, METHODS, METRICS, batch=2)
    assert resumed.entries == fresh.entries


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


def test_compare_names_an_unknown_method(run) -> None:
    result = run("compare", CAT, "--methods", "gradcam")
    assert result.code == 2
    assert "grad-cam" in result.err
