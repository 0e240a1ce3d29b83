"""The benchmark: its arithmetic with a clock of our own, and that it times what it says.

Nothing here asserts how long anything takes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from photos import CAT
from torchfbi import ForwardBackward, Settings
from torchfbi.bench import Case
from torchfbi.bench.cases import Task, build
from torchfbi.bench.contenders import COMPILED, LOW_MEMORY, MAKERS, OURS, PEERS, last_maps
from torchfbi.bench.measure import Spread, measure, ratio, settled, spread
from torchfbi.bench.memory import Memory, growth, in_a_process
from torchfbi.bench.run import run
from torchfbi.cli.main import main
from torchfbi.errors import InputError, SettingsError
from torchfbi.export import FORMATS
from torchfbi.models.torchvision import import_torchvision
from torchfbi.models.untrained import untrained
from torchfbi.plot.bench import bench_figure

# --- Timing -----------------------------------------------------------------------------------


class Clock:
    """Time passes only when a contender runs."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, ""

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, costs: list[float]) -> Any:
        left = iter(costs)

        def run() -> None:
            self.log += name
            self.now += next(left)

        return run


def test_contenders_take_turns_and_warming_up_does_not_count() -> None:
    clock = Clock()
    calls = {
        "a": clock.contender("a", [90, 80, 1, 2, 3]),
        "b": clock.contender("b", [70, 60, 4, 5, 6]),
        "c": clock.contender("c", [50, 40, 7, 8, 9]),
    }
    seconds = measure(calls, repeats=3, warmup=2, clock=clock)
    assert clock.log == "aabbcc" + "abc" + "cba" + "abc"
    assert seconds == {"a": [1, 2, 3], "b": [4, 5, 6], "c": [7, 8, 9]}


def test_median_and_quartiles() -> None:
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(median=3.0, low=2.0, high=4.0)
    assert spread([1.0, 2.0]) == (1.5, 1.25, 1.75)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_a_ratio_is_taken_within_its_round() -> None:
    """The machine was ten times slower in the last round."""
    assert ratio([2.0, 3.0, 20.0], [1.0, 1.0, 10.0]) == (2.0, 2.0, 2.5)


# --- What is timed ----------------------------------------------------------------------------


@pytest.fixture
def task() -> Task:
    """Two images and a network whose rectifiers are modules, as Captum needs them."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    x = torch.randn(2, 3, 12, 10)
    return Task(net.eval().requires_grad_(False), x, torch.tensor([3, 1]))


def guided(task: Task) -> Tensor:
    """Guided backpropagation by hand: at each rectifier both masks (Springenberg 2015)."""
    values, x = [], task.x
    for layer in task.module:
        values.append(x)
        x = layer(x)
    s = nn.functional.one_hot(task.target, 5).float()
    for layer, value in zip(reversed(task.module), reversed(values), strict=True):
        if isinstance(layer, nn.ReLU):
            s = s.clamp(min=0) * (value > 0)
        else:
            s = torch.autograd.functional.vjp(layer, value, s)[1]
    return s


def cam(task: Task) -> Tensor:
    """Grad-CAM by hand, at the last rectifier (Selvaraju 2017, equations 1 and 2)."""
    maps = task.module[:5](task.x).requires_grad_()
    scores = task.module[5:](maps).gather(1, task.target[:, None])
    weights = torch.autograd.grad(scores.sum(), maps)[0].mean((2, 3), keepdim=True)
    heat = (weights * maps.detach()).sum(1, keepdim=True).relu()
    return nn.functional.interpolate(heat, (12, 10), mode="bilinear")


def relevance(task: Task) -> Tensor:
    """By Zennit's own front door, an image at a time."""
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlusFlat

    found = []
    for image, number in zip(task.x.split(1), task.target.tolist(), strict=True):
        with Gradient(task.module, EpsilonPlusFlat()) as attributor:
            found.append(attributor(image.clone(), torch.eye(5)[[number]])[1].detach())
    return torch.cat(found)


def plain(task: Task) -> Tensor:
    return ForwardBackward(task.module, task.x, Settings.plain())(task.x, task.target)[0]


def ours(settings: Settings) -> Any:
    return lambda task: ForwardBackward(task.module, task.x, settings)(task.x, task.target)[0]


CLAIMS = {
    "forward": lambda task: task.module(task.x),
    "FBI, contrast": ours(Settings.contrast()),
    "FBI, paper": ours(Settings.paper(tau=0.0, k=0.5)),
    "FBI, contrast, compiled": ours(Settings.contrast()),
    "FBI, paper, compiled": ours(Settings.paper(tau=0.0, k=0.5)),
    "FBI, contrast, low memory": ours(Settings.contrast()),
    "gradient": plain,
    "guided backprop": guided,
    "Grad-CAM": cam,
    "EpsilonPlusFlat": relevance,
}


def needs(peer: str) -> None:
    import_torchvision()  # Zennit does so too, and may need its operators declared
    pytest.importorskip("zennit" if peer == "EpsilonPlusFlat" else "captum")


@pytest.mark.parametrize("name", MAKERS)
def test_each_contender_computes_what_its_name_says(
    name: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What AOTInductor makes of a walk is tested in tests/export; compiling takes a minute.
    monkeypatch.setitem(FORMATS, "aoti", FORMATS["pt2"])
    if name in PEERS:
        needs(name)
    call = MAKERS[name](task)
    expected = CLAIMS[name](task)
    assert expected.count_nonzero() > 5
    for _ in range(2):  # the second call like the first
        torch.testing.assert_close(call(), expected, rtol=1e-4, atol=1e-6)
    assert task.x.grad is None
    assert not task.x.requires_grad
    assert not any(part._forward_hooks or part._backward_hooks for part in task.module.modules())


@pytest.mark.parametrize("name", [*OURS, *PEERS])
def test_in_half_precision_too_there_is_a_value_for_every_pixel(name: str, task: Task) -> None:
    if name in PEERS:
        needs(name)
    half = task._replace(module=task.module.bfloat16(), x=task.x.bfloat16())
    values = MAKERS[name](half)()
    assert values.dtype == torch.bfloat16
    assert (len(values), *values.shape[2:]) == (2, 12, 10)


def test_grad_cam_stands_at_the_last_maps(task: Task) -> None:
    assert last_maps(task) is task.module[4]
    flat = nn.Sequential(nn.Flatten(), nn.Linear(360, 2))
    with pytest.raises(InputError, match="Grad-CAM needs"):
        last_maps(task._replace(module=flat))


# --- Cases ------------------------------------------------------------------------------------


def test_architectures_get_random_weights_that_are_alive_and_always_the_same() -> None:
    state = torch.get_rng_state()
    case = Case("timm:test_resnet", batch=3, size=64)
    first, second = build(case), build(case)
    assert torch.equal(torch.get_rng_state(), state)
    assert not case.trained
    assert first.x.shape == (3, 3, 64, 64)
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.module(first.x), second.module(second.x))
    assert torch.equal(first.target, first.module(first.x).argmax(1))
    zero = [name for name, p in first.module.named_parameters() if not p.any()]
    assert not zero
    other = untrained("timm:test_resnet", seed=1).module
    assert not torch.equal(next(other.parameters()), next(first.module.parameters()))


def test_a_photo_is_what_all_samples_show(tmp_path: Path) -> None:
    file, own = tmp_path / "w.pt", untrained("timm:test_resnet", seed=1).module.state_dict()
    torch.save(own, file)
    weighed = build(Case("timm:test_resnet", size=64, weights=file)).module.state_dict()
    assert all(torch.equal(weighed[name], tensor) for name, tensor in own.items())
    case = Case("digits", batch=2, image=CAT)
    task = build(case)
    assert case.trained
    assert torch.equal(task.x[0], task.x[1])
    assert not torch.equal(task.x, build(Case("digits", batch=2)).x)


def test_networks_that_cannot_be_benchmarked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="digits takes no images"):
        build(Case("digits", size=9))
    code = "import torch\ndef dense():\n    return torch.nn.Conv2d(3, 4, 3)\n"
    (tmp_path / "nets.py").write_text(code)
    with pytest.raises(InputError, match="no classifier"):
        build(Case(f"{tmp_path / 'nets.py'}:dense"))
    with pytest.raises(SettingsError, match="device 'nowhere' cannot be used"):
        build(Case("digits", device="nowhere"))
    for wrong in ({"dtype": "float16"}, {"batch": 0}, {"size": 0}):
        with pytest.raises(SettingsError):
            Case("digits", **wrong)  # type: ignore[arg-type]


# --- Memory -----------------------------------------------------------------------------------

MEBIBYTE = 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are Linux's")
def test_memory_is_what_getting_ready_keeps_and_what_a_call_needs_at_most() -> None:
    def make() -> Any:
        torch.ones(100 * MEBIBYTE, dtype=torch.uint8)  # on the way, and gone
        kept = torch.ones(40 * MEBIBYTE, dtype=torch.uint8)
        return lambda: (kept, torch.ones(60 * MEBIBYTE, dtype=torch.uint8))

    torch.ones(300 * MEBIBYTE, dtype=torch.uint8)  # an earlier peak is forgotten
    held, peak = growth(make)
    assert held == pytest.approx(40 * MEBIBYTE, abs=5 * MEBIBYTE)
    assert peak == pytest.approx(100 * MEBIBYTE, abs=5 * MEBIBYTE)


def test_an_accelerator_is_waited_for_and_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    done, given = list[str](), iter([100, 150, 400])
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: done.append("waited"))
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda: next(given))
    measure({"call": lambda: done.append("called")}, repeats=1, warmup=0, clock=settled)
    assert done == ["waited", "called", "waited"]
    assert growth(lambda: lambda: None, "cuda") == Memory(held=50, peak=300)


def test_a_process_that_dies_gives_no_memory(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_a_process(Case("digits"), "no such contender", threads=1) is None
    capfd.readouterr()  # its traceback


# --- A run ------------------------------------------------------------------------------------


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchfbi.bench.run.in_a_process", lambda *_: None)


@pytest.mark.usefixtures("without_processes")
def test_a_run_in_half_precision_keeps_the_exact_reference() -> None:
    threads = torch.get_num_threads()
    result = run(Case("digits", dtype="bfloat16"), repeats=2, threads=2)
    assert torch.get_num_threads() == threads
    names = ["forward", "forward, bfloat16", *OURS]
    assert [row.name for row in result.rows] == names
    assert result.rows[0].ratio == (1.0, 1.0, 1.0)
    assert result.title == "digits, trained weights, 1×1×28×28, bfloat16"


@pytest.mark.usefixtures("without_processes")
def test_a_peer_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(task: Task) -> Any:
        raise RuntimeError("an output was modified in place\nmore")

    monkeypatch.setitem(MAKERS, "guided backprop", fails)
    monkeypatch.setitem(MAKERS, "Grad-CAM", MAKERS["gradient"])
    result = run(Case("digits"), repeats=1, peers=True)
    failed = next(row for row in result.rows if row.name == "guided backprop")
    assert (failed.seconds, failed.failed) == (None, "an output was modified in place")
    assert "modified in place" in json.dumps(result.to_dict())
    text = [t.get_text() for t in bench_figure([result], "a machine").texts]
    assert "an output was modified in place" in text


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


def test_the_command_measures_draws_and_writes(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("captum")
    monkeypatch.setenv("COLUMNS", "120")
    for name in COMPILED:
        monkeypatch.setitem(MAKERS, name, MAKERS["gradient"])  # compiled above
    measured_in = ("forward", "FBI, paper")  # a process each, which takes seconds

    def in_some(case: Case, name: str, threads: int) -> Memory | None:
        return in_a_process(case, name, threads) if name in measured_in else None

    monkeypatch.setattr("torchfbi.bench.run.in_a_process", in_some)
    command = ["bench", "--models", "digits", "--batch", "2", "--peers", "--compiled"]
    with pytest.raises(SystemExit) as left:
        main([*command, "--repeats", "2", "--image", str(CAT), "--dpi", "40", "--out", str(out)])
    printed = capsys.readouterr().out
    assert left.value.code == 0
    assert "digits, trained weights, 2×1×28×28, float32" in printed
    names = [name for name in MAKERS if name != LOW_MEMORY]
    assert all(name in printed for name in names)
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")

    measured = json.loads((out / "bench.json").read_text())
    assert measured["schema"] == 1
    machine = measured["machine"]
    assert machine["cpu"]
    assert machine["threads"] == torch.get_num_threads()
    assert {"torchfbi", "torch", "numpy", "captum"} <= machine["versions"].keys()
    (result,) = measured["results"]
    assert (result["model"], result["batch"], result["image"]) == ("digits", 2, "chelsea.png")
    assert result["shape"] == [2, 1, 28, 28]
    assert result["parameters"] == 390410
    assert result["capture"].keys() == {"first", "again"}
    assert [row["name"] for row in result["rows"]] == names
    for row in result["rows"]:
        assert row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
        assert row["ratio"]["median"] > 0
        if row["name"] in measured_in:
            assert row["memory"]["peak"] >= row["memory"]["held"] >= 0
        else:
            assert row["memory"] is None
        assert not row["failed"]
    for row in result["rows"]:
        layers = [station["layer"] for station in row["alive"]]
        shares = [station["share"] for station in row["alive"]]
        if row["name"] in ("FBI, contrast", "FBI, paper"):
            assert layers[-1] == "image"
            assert len(layers) > 3
            assert all(0 < share <= 1 for share in shares)
        else:
            assert not layers


@pytest.mark.usefixtures("without_processes")
def test_json_alone_is_printed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--models", "digits", "--batch", "1,2", "--repeats", "1", "--json",
              "--out", str(out), "--dpi", "40"])  # fmt: skip
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["batch"] for result in results] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "torchvision:resnet5O"], "no model 'torchvision:resnet5O'"),
        (["--models", " , "], "names no network"),
        (["--models", "digits,digits", "--weights", "w.pt"], "belong to one network"),
        (["--dtype", "float8"], "dtype is 'float8': choose float32 or bfloat16"),
        (["--batch", "1,many"], "give whole numbers"),
        (["--batch", "0"], "at least 1"),
        (["--repeats", "0"], "repeats"),
        (["--models", "digits", "--image", "nowhere.jpg"], "nowhere.jpg"),
    ],
)
def test_bad_usage_is_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", *arguments, "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert message in error
    assert error.count("\n") <= 2
