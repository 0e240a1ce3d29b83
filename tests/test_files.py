"""Networks, weights and labels from files, and the commands that list and check networks."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from photos import CAT, COFFEE
from torchfbi import Explanation, Labels, Model, Photo, Preprocess, explain, load
from torchfbi.capture.fingerprint import weights_hash
from torchfbi.cli import options
from torchfbi.cli.main import main
from torchfbi.errors import InputError, ModelError, TargetError
from torchfbi.models.conventions import USUAL, tried
from torchfbi.models.files import IMAGENET

FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(64, 3),
    )

def bilinear():
    class Bilinear(nn.Module):
        def forward(self, x):
            return (x.flatten(2) @ x.flatten(2).mT).mean(2)
    return Bilinear()

def number():
    return 7

def broken():
    raise RuntimeError("no such layer")
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FACTORY)
    return path


@pytest.fixture
def model(factory: Path) -> Model:
    return load(f"{factory}:make")


def test_a_function_in_a_python_file(model: Model) -> None:
    assert not model.module.training
    assert len(model.labels) == 3
    assert explain(model, CAT).values.shape == (1, 3, 224, 224)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", "returned a int, not an nn.Module"),
        ("broken", "failed: RuntimeError: no such layer"),
        ("missing", "failed: AttributeError"),
    ],
)
def test_functions_that_make_no_network(factory: Path, function: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(f"{factory}:{function}")
    with pytest.raises(ModelError, match="no such file"):
        load("nowhere.py:make")


def test_weights_that_do_not_fit(factory: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ModelError, match=r"other\.pt does not fit .*Missing key"):
        load(f"{factory}:make", weights=path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ModelError, match=r"it needs torch\.nn\.modules\.linear\.Linear\. Where"):
        load(f"{factory}:make", weights=path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds no state dict"):
        load(f"{factory}:make", weights=path)
    path.write_bytes(b"hello")
    with pytest.raises(ModelError, match=r"other\.pt"):
        load(f"{factory}:make", weights=path)
    (tmp_path / "bad.safetensors").write_bytes(b"hello")
    with pytest.raises(ModelError, match="damaged"):
        load(f"{factory}:make", weights=tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match="no such file"):
        load(f"{factory}:make", weights="nowhere.pt")
    with pytest.raises(ModelError, match="weights come as"):
        load(f"{factory}:make", weights=factory)
    with pytest.raises(ModelError, match="no such file"):
        load("nowhere.pt")
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ModelError, match="holds weights, no network: name the network"):
        load(str(path))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export's own
def test_exported_programs(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    batch = ({0: torch.export.Dim.AUTO},)
    example = (torch.zeros(2, 3, 40, 48),)
    program = torch.export.export(model.module, example, dynamic_shapes=batch, strict=False)
    torch.export.save(program, path)
    loaded = load(str(path))
    assert loaded.preprocess.size == (40, 48)
    x = torch.randn(1, 3, 40, 48)
    assert torch.equal(explain(loaded, x).values, explain(model.module, x).values)
    with pytest.raises(InputError, match=r"exported for inputs .* not \(1, 3, 24, 24\)"):
        explain(torch.export.load(path), torch.zeros(1, 3, 24, 24))
    fixed = torch.export.export(model.module, example, strict=False)
    torch.export.save(fixed, tmp_path / "two.pt2")
    two = load(str(tmp_path / "two.pt2"))
    assert len(explain(two, [CAT, CAT])) == 2
    with pytest.raises(InputError, match=r"rejects.*\[0\] == 2"):
        explain(two, CAT)
    for content in (b"", b"hello", path.read_bytes()[:-50]):
        (tmp_path / "bad.pt2").write_bytes(content)
        with pytest.raises(ModelError, match=r"bad\.pt2"):
            load(str(tmp_path / "bad.pt2"))
    with pytest.raises(ModelError, match=r"nowhere\.pt2"):
        load("nowhere.pt2")


def test_labels_from_a_file(tmp_path: Path) -> None:
    lines, listed, numbered, pairs = (tmp_path / n for n in ("a.txt", "b.json", "c.json", "d.json"))
    lines.write_text("cat\ndog\ncup\n", encoding="utf-8")
    listed.write_text('["cat", "dog", "cup"]')
    numbered.write_text('{"2": "cup", "0": "cat", "1": "dog"}')
    pairs.write_text('{"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "cup"]}')
    others = {
        "class_indices.json": '{"dog": 1, "cup": 2, "cat": 0}',  # Keras
        "labels.txt": "0 cat\n1 dog\n2 cup\n",  # Teachable Machine
        "data.yaml": "nc: 3\nnames:\n  0: cat\n  1: dog\n  2: cup\n",  # Ultralytics
        "list.yml": "[cat, dog, cup]",
        "notepad.txt": "\ufeff0 cat\r\n1 dog\r\n2 cup\r\n",
        "marked.json": '\ufeff["cat", "dog", "cup"]',
    }
    for name, text in others.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    for path in (lines, listed, numbered, pairs, *(tmp_path / name for name in others)):
        assert Labels.read(path, 3).names == ("cat", "dog", "cup")
    with pytest.raises(ModelError, match=r"a\.txt: it has 3 names, the network 4 classes"):
        Labels.read(lines, 4)
    lines.write_bytes(b"\xff\xfe\xff")
    numbered.write_text('{"1": "cat"}')
    unclear = {  # which YAML and JSON take for something else
        "answers.yml": "[no, yes, maybe]",
        "kinds.json": '[true, "b", "c"]',
        "text.json": '"abc"',
        "twice.json": '{"0": "a", "1": "b", "2": "c", "0": "d"}',
    }
    for name, text in unclear.items():
        (tmp_path / name).write_text(text)
    for path in (
        lines,
        numbered,
        tmp_path / "nowhere.txt",
        tmp_path,
        *map(tmp_path.joinpath, unclear),
    ):
        with pytest.raises(ModelError, match="no list of class names"):
            Labels.read(path, 3)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_the_command_line_takes_a_users_own_network(
    factory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\ncup")
    code, out, err = run(
        capsys, "explain", CAT, "--model", f"{factory}:make", "--labels", names, "--size", 40,
        "--crop", 32, "--mean", 0.5, 0.4, 0.5, "--std", 0.2, "--target", "cup",
        "-o", tmp_path, "--json",
    )  # fmt: skip
    assert code == 0, err
    (result,) = json.loads(out)
    assert result["target"] == 2
    manifest = json.loads(Path(result["files"][2]).read_text())
    assert manifest["shape"] == [1, 3, 32, 32]
    assert manifest["labels"] == ["cat", "dog", "cup"]


def test_what_was_assumed_of_the_preprocessing_is_said(
    factory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = weights_hash(load(f"{factory}:make").module)
    arguments = ["explain", CAT, "--model", f"{factory}:make", "-o", tmp_path, "--no-verify"]
    for said, left in (
        ([], ["mean", "std", "framing"]),
        (["--mean", 0.5], ["std", "framing"]),
        (["--std", 0.5, "--bgr", "--stretch"], ["mean"]),
        (["--mean", 0.5, "--std", 0.5, "--size", 256], []),
    ):
        code, _, err = run(capsys, *arguments, *said)
        assert code == 0
        manifest = json.loads((tmp_path / "chelsea.json").read_text())
        assert manifest["assumed"] == left
        assert manifest["weights"] == expected
        assert ("Assumed, since nobody said" in err) == bool(left)
        kept = Explanation.load(tmp_path / "chelsea.npz")
        assert kept.assumed == tuple(left)
        assert kept.preprocess is not None
        told = " ".join(kept.warnings())
        assert ("less 0.485" in told or "BGR of 0 to 1, less 0.406" in told) == ("mean" in left)
        assert ("divided by 0.229" in told) == ("std" in left)


def test_check_finds_the_scaling_that_batch_norms_remember(tmp_path: Path) -> None:
    """Of three networks that met photos in three scales."""
    photos = [Photo.read(CAT), Photo.read(COFFEE)]
    for name in ("x / 255", "x / 127.5 - 1", "Caffe's"):
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8, momentum=None), nn.Flatten()
        )
        trained = replace(IMAGENET, **{"channels": "RGB", **USUAL[name]}, fit="stretch")
        module(torch.stack([trained(photo)[0] for photo in photos]))
        model = Model(module.eval(), IMAGENET, Labels.numbered(8 * 111 * 111), "net")
        best = tried(model, photos)[0]
        assert best.name == f"{name}, squeezed"
        assert best.distance == pytest.approx(0, abs=0.05)
        assert "--stretch" in best.options
        assert ("--bgr" in best.options) == (name == "Caffe's")


def test_a_name_of_several_classes_is_asked_back(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = Labels(["tabby cat", "dog", "tiger cat"])
    assert options.chosen(["cat", "dog"], labels) == ["cat", "dog"]  # no terminal: left alone
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda text: 2)
    assert options.chosen(["cat", "dog", "1", "top2"], labels) == ["2", "dog", "1", "top2"]
    monkeypatch.setattr("typer.prompt", lambda text: "1")
    with pytest.raises(TargetError, match="none of them"):
        options.chosen("cat", labels)


def test_check_prints_the_operators(factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", f"{factory}:make", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["explainable"]
    assert result["operators"]["aten.convolution.default"] == 1
    assert result["features"] == ["1"]
    for photos in ([CAT], []):
        code, _, err = run(capsys, "check", f"{factory}:make", *photos, "--device", "nowhere")
        assert code == 2
        assert "device 'nowhere' cannot be used" in err
    code, out, _ = run(capsys, "check", "torchvision:squeezenet1_1")
    assert code == 0
    assert "aten.cat.default" in out
    assert "Every operator has an adjoint: 26 features" in out


def test_check_names_every_missing_operator(
    factory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "check", f"{factory}:bilinear")
    assert code == 2
    assert "aten.matmul.default of two activations  at matmul" in err
    assert "Traceback" not in err


def test_models_lists_what_can_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models", "efficientnet-lite0", "--json")
    assert code == 0
    (lite,) = json.loads(out)
    assert lite == {
        "name": "efficientnet-lite0",
        "parameters": 4652008,
        "input": "224x224",
        "source": "package",
        "weights": "installed",
    }
    code, out, _ = run(capsys, "models", "torchvision:resnet18")
    assert code == 0
    assert "11,689,512" in out
    code, out, _ = run(capsys, "models", "squeezenet1_?", "--json")
    assert code == 0
    names = [listing["name"] for listing in json.loads(out)]
    assert names == ["torchvision:squeezenet1_0", "torchvision:squeezenet1_1"]
    code, _, err = run(capsys, "models", "unicorn")
    assert code == 2
    assert "no network's name matches 'unicorn'" in err


def test_the_preprocessing_of_an_unknown_network_is_imagenets(model: Model) -> None:
    assert isinstance(model.preprocess, Preprocess)
    assert model.preprocess.size == (224, 224)
    assert model.preprocess.mean == (0.485, 0.456, 0.406)
