"""The command line as a user meets it: outputs, exit codes, and one-line errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photos import CAT, COFFEE
from torchfbi import Explanation
from torchfbi.cli.main import separate_values
from torchfbi.plot.overview import Entry, with_truth


def kind_and_frames(path: Path) -> tuple[str | None, int]:
    with Image.open(path) as picture:
        return picture.format, getattr(picture, "n_frames", 1)


def test_explain_writes_figure_arrays_and_manifest(run, tmp_path: Path) -> None:
    result = run("explain", CAT, "-o", "out", "--target", "Egyptian cat")
    assert result.code == 0
    assert "Egyptian cat" in result.out
    assert "probability" in result.out
    figure, arrays, manifest = (
        tmp_path / "out" / f"chelsea-Egyptian-cat.{suffix}" for suffix in ("png", "npz", "json")
    )
    assert kind_and_frames(figure)[0] == "PNG"
    explanation = Explanation.load(arrays)
    assert explanation.label(int(explanation.target[0])) == "Egyptian cat"
    assert json.loads(manifest.read_text())["settings"]["preset"] == "contrast"


def test_explain_as_json_prints_nothing_else(run) -> None:
    result = run(
        "explain", CAT, COFFEE, "--json", "--no-verify", "--preset", "paper", "--tau", "0",
        "--k", "0.3",
    )  # fmt: skip
    assert result.code == 0
    cat, coffee = json.loads(result.out)
    assert cat["photo"] == "chelsea.png"
    assert coffee["top"][0][1] == "espresso"
    settings = json.loads(Path(cat["files"][2]).read_text())["settings"]
    assert (settings["k"], settings["tau"]) == (0.3, 0.0)


def test_names_are_shown_and_not_obeyed(run, tmp_path: Path) -> None:
    """Of files, which may be no text at all, and of classes: they could write to the clipboard."""
    evil = "\x1b]52;c;cHduZWQ=\x07\x9b31m"
    photo = tmp_path / f"{evil}\udcff.png"
    photo.write_bytes(CAT.read_bytes())
    (tmp_path / "names.txt").write_text("\n".join(f"{evil} {number}" for number in range(10)))
    arguments = ("--model", "digits", "--labels", "names.txt", "--no-verify")
    for asked in ((photo,), (f"{evil}.jpg",), (photo, "--target", evil)):
        result = run("explain", *asked, *arguments)
        assert result.code == (0 if asked == (photo,) else 2)
        assert "52;c;cHduZWQ=" in result.out + result.err
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", result.out + result.err)


def test_several_classes_of_one_photo(run) -> None:
    for asked in (("--top", "2"), ("-t", "top1", "-t", "top2")):
        result = run("explain", CAT, *asked, "--json", "--no-verify")
        assert result.code == 0
        first, second = json.loads(result.out)
        assert [first["target"], second["target"]] == [n for n, _, _ in first["top"][:2]]
        assert first["files"] != second["files"]
        assert len(Explanation.load(second["files"][1])) == 1
    refused = run("explain", CAT, "--top", "2", "--target", "cup")
    assert refused.code == 2
    assert "give one of the two" in refused.err


def test_settings_reach_the_walk(run) -> None:
    result = run(
        "explain", CAT, "--preset", "paper", "--tau", "0.5", "--set", "pooling=winner",
        "--set", "gamma=0.1", "--set", "subtract_bias=false", "--json", "--no-verify",
    )  # fmt: skip
    settings = json.loads(Path(json.loads(result.out)[0]["files"][2]).read_text())["settings"]
    assert settings["tau"] == 0.5
    assert settings["pooling"] == "winner"
    assert settings["gamma"] == 0.1
    assert settings["subtract_bias"] is False


def test_one_bad_image_does_not_stop_the_others(run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(CAT.read_bytes()[:5000])
    result = run("explain", CAT, broken, "nowhere.jpg", COFFEE, "--no-verify")
    assert result.code == 1
    assert "2 of 4 images failed" in result.err
    assert "broken.png" in result.err
    assert "nowhere.jpg" in result.err
    assert (tmp_path / "fbi-out" / "chelsea.png").exists()
    assert (tmp_path / "fbi-out" / "coffee.png").exists()
    page = (tmp_path / "fbi-out" / "overview.html").read_text()  # of more than three
    order = [page.index(name) for name in ("broken.png", "chelsea.png", "coffee.png")]
    assert order[0] == min(order)


def test_photos_of_one_name_do_not_overwrite_each_other(run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    shutil.copy(COFFEE, tmp_path / "a" / "chelsea.png")
    assert run("explain", CAT, tmp_path / "a/chelsea.png", "--no-verify").code == 0
    assert (tmp_path / "fbi-out" / "chelsea-2.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "nowhere.jpg"], "nowhere.jpg"),
        (["explain", CAT, "--target", "unicorn"], "unicorn"),
        (["explain", CAT, "--target", "1000"], "0 to 999"),
        (["explain", CAT, "--preset", "papr"], "preset 'papr' is unknown: choose paper"),
        (["explain", CAT, "--k", "0"], "k is 0.0"),
        (["explain", CAT, "--k", "many"], "--k"),
        (["explain", CAT, "--tau", "-1"], "tau is -1.0: it must be >= 0"),
        (["explain", CAT, "--set", "pooling"], "NAME=VALUE"),
        (["explain", CAT, "--set", "poling=winner"], "unknown setting poling"),
        (["explain", CAT, "--model", "efficientnet-lite9"], "efficientnet-lite0"),
        (["explain", CAT, "--format", "bmp", "--no-verify"], "bmp"),
        (["explain", CAT, "--out", CAT, "--no-verify"], "chelsea.png"),
        (["explain", CAT, "--dpi", "5"], "dpi"),
        (["explain"], "IMAGE"),
        (["explian", CAT], "explian"),
        (["sweep", CAT, "--k", "0"], "k is 0"),
        (["flow", CAT, "--animation", "mp4"], "mp4"),
    ],
)
def test_bad_usage_and_input_is_one_clear_line(run, arguments: list[object], message: str) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.err.count("\n") <= 2
    assert message in result.err


def test_a_class_that_is_not_there_is_said(run, tmp_path: Path) -> None:
    result = run("explain", COFFEE, "--target", "tabby cat", "--no-verify")
    assert "does not see the class asked for: tabby cat has 0.0%, espresso" in result.err
    manifest = json.loads((tmp_path / "fbi-out" / "coffee-tabby-cat.json").read_text())
    assert "does not see" in manifest["samples"][0]["warnings"][0]


def test_two_networks_side_by_side(run, tmp_path: Path) -> None:
    networks = ("-m", "efficientnet-lite0", "-m", "efficientnet-lite1")
    result = run("compare", CAT, *networks, "-t", "tabby", "--json", "--dpi", "40")
    assert result.code == 0
    found = json.loads(result.out)
    assert [row["model"] for row in found["rows"]] == list(networks[1::2])
    assert [row["label"] for row in found["rows"]] == ["tabby cat"] * 2
    first, second = (np.load(tmp_path / "fbi-out" / f"compare-{i}.npz")["maps"] for i in (1, 2))
    assert (first.shape, second.shape) == ((1, 1, 224, 224), (1, 1, 240, 240))


def test_folders_called_as_classes_say_what_is_right() -> None:
    entries = [
        Entry("a/cat/1.jpg", said="cat", probability=0.9, ruling="holds"),
        Entry("a/cat/2.jpg", said="dog", probability=0.8),
        Entry("a/Hot_dog/3.jpg", said="hot dog", probability=0.7, ruling="does not hold"),
        Entry("a/other/4.jpg", said="cat", probability=0.6),
        Entry("a/cat/5.jpg", error="damaged"),
    ]
    judged = with_truth(entries, ["cat", "dog", "hot dog"])
    assert [one.truth for one in judged] == ["cat", "cat", "hot dog", "", "cat"]
    assert [one.wrong for one in judged] == [False, True, False, False, False]
    assert [one.concern for one in judged] == [5, 1, 2, 5, 0]
    assert with_truth(entries[:2], ["cat", "dog"]) == entries[:2]  # one folder: perhaps by chance


def test_flow_draws_a_figure_and_an_animation(run, tmp_path: Path) -> None:
    result = run("flow", CAT, "--model", "digits", "--layers", "4", "--dpi", "60")
    assert result.code == 0
    assert kind_and_frames(tmp_path / "fbi-out" / "chelsea-flow.png") == ("PNG", 1)
    kind, frames = kind_and_frames(tmp_path / "fbi-out" / "chelsea-flow.gif")
    assert kind == "GIF"
    assert frames > 3


def test_sweep_takes_several_values_after_one_option(run, tmp_path: Path) -> None:
    result = run("sweep", CAT, "--k", "0.1", "1", "--tau", "0", "2", "--json", "--dpi", "60")
    assert result.code == 0
    cells = json.loads(result.out)["cells"]
    assert [(cell["k"], cell["tau"]) for cell in cells] == [
        (0.1, 0.0), (0.1, 2.0), (1.0, 0.0), (1.0, 2.0),
    ]  # fmt: skip
    assert (tmp_path / "fbi-out" / "chelsea-sweep.png").exists()


def test_values_are_separated_only_after_their_options() -> None:
    assert separate_values(["sweep", "1.png", "--k", "0.1", ".5", "1", "--tau", "-1", "2e3"]) == [
        "sweep", "1.png", "--k", "0.1", "--k", ".5", "--k", "1", "--tau", "-1", "--tau", "2e3",
    ]  # fmt: skip
    assert separate_values(["sweep", "--tau", "0", "1", "-o", "7"]) == [
        "sweep", "--tau", "0", "--tau", "1", "-o", "7",
    ]  # fmt: skip
    for left_alone in (["sweep", "--k", "0.1", "cat.png", "5"], ["explain", "--k", "0.1", "2"]):
        assert separate_values(left_alone) == left_alone


def test_ctrl_c_while_modules_are_imported(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as stopped:
            raise RuntimeError("Error calling __set_name__") from stopped

    monkeypatch.setattr("torchfbi.cli.main.Later.real", importing)
    result = run("explain", CAT)
    assert (result.code, result.err) == (
        130,
        "torchfbi: stopped; what was written so far is complete.\n",
    )


def test_demo_version_and_help(run, tmp_path: Path) -> None:
    result = run("demo")
    assert result.code == 0
    assert (tmp_path / "fbi-out" / "demo-espresso.png").exists()
    assert "demo-espresso.png" in result.out
    assert "torchfbi" in run("--version").out
    help_text = run("explain", "--help")
    assert help_text.code == 0
    assert "--tau" in help_text.out
