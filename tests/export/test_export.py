"""Exported explainers say what the eager one says, and a file that does not is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn

from torchfbi import ForwardBackward, Labels, Model, Preprocess, Settings
from torchfbi.errors import ExportError, InputError, SettingsError
from torchfbi.export import FORMATS, KEY, TOP_CLASS, Explainer, Inputs, Outputs, export
from torchfbi.export.agreement import compare
from torchfbi.export.explainer import trace
from torchfbi.method.evidence import support_of_values

MINE = """
from torch import nn
from torchfbi import Labels, Model, Preprocess
def make():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    preprocess = Preprocess(8, 8, (0.5,) * 3, (0.5,) * 3)
    return Model(net.eval(), preprocess, Labels(["yes", "no"]), "mine")
"""


class Net(nn.Module):
    """Convolutions, overlapping pools, a shortcut and a dense layer, for (N, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.head = nn.MaxPool2d(3, 2, ceil_mode=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.stem(x)))
        x = torch.relu(self.body(x)) + x
        return self.head(x.mean((2, 3)))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16)


def model(module: nn.Module) -> Model:
    preprocess = Preprocess(16, 16, (0.5,) * 3, (0.25,) * 3)
    return Model(module.eval(), preprocess, Labels(["a", "b", "c", "d", "é"]), "net")


@pytest.mark.parametrize(
    ("to", "settings"),
    [
        ("pt2", Settings.contrast(k=0.5, tau=1e-4)),
        ("onnx", Settings.paper(tau=0.01)),
        ("onnx", Settings.contrast()),
    ],
)
def test_inputs_are_inputs(to: str, settings: Settings, tmp_path: Path, images: Tensor) -> None:
    """Another batch, other classes, another k and tau than it was exported with."""
    net = Net().eval()
    written = export(net, tmp_path / "net", to, settings, images=images)
    assert written.agreement.density > 0
    run = FORMATS[to].open(written.path)
    told = FORMATS[to].read(written.path)["inputs"]
    assert (told["k"], told["tau"]) == (None if settings.k == 1 else settings.k, settings.tau)
    changed = settings if settings.k == 1 else settings.override(k=0.3)
    changed = changed if settings.tau is None else changed.override(tau=0.005)
    x = torch.randn(5, 3, 16, 16)
    target = torch.tensor([4, 0, 1, 3, 2])
    found = run(Inputs.of(x, target, changed))
    values, logits = ForwardBackward(net, x, changed)(x, target)
    assert torch.equal(found.support, support_of_values(values, settings))
    torch.testing.assert_close(found.values, values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.logits, logits)


def test_aoti(tmp_path: Path, images: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    # One small file is compiled: no pool of compilers for it, no trial of the vector instructions.
    with torch._inductor.config.patch({"compile_threads": 1, "cpp.vec_isa_ok": True}):
        written = export(net.eval(), tmp_path / "net.pt2", "aoti", "plain", images=images)
    assert written.agreement.samples == 4
    assert FORMATS["aoti"].read(written.path)["settings"]["preset"] == "plain"


def test_a_batch_that_is_fixed(tmp_path: Path, images: Tensor) -> None:
    net, settings = Net().eval(), Settings.contrast()
    written = export(net, tmp_path / "net", "pt2", settings, images=images, batch=4)
    assert written.agreement.samples == 8
    assert FORMATS["pt2"].read(written.path)["batch"] == 4
    run, target = FORMATS["pt2"].open(written.path), torch.tensor([2])
    x = torch.randn(4, 3, 16, 16)
    found = run(Inputs.of(x, target.expand(4), settings))
    torch.testing.assert_close(found.values, ForwardBackward(net, x, settings)(x, 2)[0])
    with pytest.raises(Exception, match=r"image|shape"):
        run(Inputs.of(images, target.expand(3), settings))
    with pytest.raises(InputError, match="at least 1"):
        export(net, tmp_path / "none", "pt2", settings, images=images, batch=0)
    assert not (tmp_path / "none.pt2").exists()
    with pytest.raises(InputError, match="one photo at a time"):
        export(model(net), tmp_path / "page", "web", settings, batch=2)
    assert not (tmp_path / "page").exists()


def test_a_walk_that_cannot_have_a_free_batch_takes_one_image(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fixed(walker: ForwardBackward, x: Tensor, size: int | None, others: Any) -> object:
        if size is None:
            raise RuntimeError("Constraints violated (batch)!\n - Not all values of batch ...")
        return trace(walker, x, size, others)

    monkeypatch.setattr("torchfbi.export.trace", fixed)
    (tmp_path / "mine.py").write_text(MINE)
    result = run("export", "--model", "mine.py:make", "--to", "pt2", "-o", "net")
    assert result.code == 0
    assert "It takes 1 image at a time" in result.out
    assert FORMATS["pt2"].read(tmp_path / "net.pt2")["batch"] == 1
    monkeypatch.setattr("torchfbi.export.trace", lambda *_: fixed(*_[:2], None, ()))
    refused = run("export", "--model", "mine.py:make", "--to", "pt2", "-o", "none")
    assert refused.code == 2
    assert "cannot be traced: Constraints violated" in refused.err


def test_half_precision(tmp_path: Path, images: Tensor) -> None:
    net, x, settings = Net().eval().bfloat16(), images.bfloat16(), Settings.paper(tau=0.0)
    written = export(net, tmp_path / "net", "pt2", settings, images=x)
    assert written.agreement.exact
    question = Inputs.of(x, torch.tensor([0, 1, 2]), settings)
    assert FORMATS["pt2"].open(written.path)(question).values.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "allowed", "refused"), [(torch.float32, 5e-5, 1e-2), (torch.bfloat16, 0.02, 0.5)]
)
def test_as_much_may_differ_as_roundings_do(
    dtype: torch.dtype, allowed: float, refused: float, images: Tensor
) -> None:
    net, settings = Net().eval().to(dtype), Settings.paper(tau=0.0, k=1.0)
    walker = ForwardBackward(net, images[:1].to(dtype), settings)
    question = Inputs.of(images[:1].to(dtype), torch.tensor([1]), settings)
    answer = Outputs(*Explainer(walker)(**question.named()))
    assert compare(walker, question, answer._replace(values=answer.values * (1 + allowed))).exact
    for far in (
        {"values": answer.values * (1 + refused)},
        {"logits": answer.logits * (1 + refused)},
        {"support": ~answer.support},
    ):
        with pytest.raises(ExportError, match="differs from the eager one"):
            compare(walker, question, answer._replace(**far))


def test_the_top_class_and_one_that_does_not_exist(tmp_path: Path, images: Tensor) -> None:
    net, settings = Net().eval(), Settings.plain()
    written = export(net, tmp_path / "net", "pt2", settings, images=images)
    run = FORMATS["pt2"].open(written.path)
    values, _ = ForwardBackward(net, images, settings)(images)
    for none in (5, TOP_CLASS - 1):
        target = torch.tensor([TOP_CLASS, 2, none])
        answer = run(Inputs.of(images, target, settings))
        torch.testing.assert_close(answer.values[0], values[0])
        assert answer.support[1].any()
        assert answer.values[2].isnan().all()
        assert not answer.support[2].any()


def test_a_file_tells_all_that_is_needed_to_use_it(tmp_path: Path) -> None:
    described = replace(model(Net()), assumed=("std",))
    written = export(described, tmp_path / "net.onnx", "onnx", Settings.plain(k=0.5))
    session = onnxruntime.InferenceSession(written.path)
    told = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    assert told["labels"][4] == "é"
    assert Preprocess(**told["preprocess"]) == model(Net()).preprocess
    assert told["assumed"] == list(described.warnings())
    assert Settings.from_dict(told["settings"]) == Settings.plain(k=0.5)
    assert told["versions"]["torch"] == torch.__version__
    assert [i.name for i in session.get_inputs()] == ["image", "target", "k"]
    assert written.size == written.path.stat().st_size


def test_what_disagrees_is_refused_and_leaves_nothing(
    tmp_path: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path):
        run = FORMATS["pt2"].open(path)

        def answer(question: Inputs) -> Outputs:
            right = run(question)
            return right._replace(support=~right.support)

        return answer

    monkeypatch.setitem(FORMATS, "wrong", FORMATS["pt2"]._replace(open=opened))
    monkeypatch.setattr("torchfbi.export.TARGETS", ("wrong",))
    with pytest.raises(ExportError, match="Nothing was written"):
        export(Net().eval(), tmp_path / "net", "wrong", "plain", images=images)
    assert not list(tmp_path.iterdir())


def test_refusals_say_what_to_do(tmp_path: Path, images: Tensor) -> None:
    dense = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    with pytest.raises(ExportError, match=r"only explainers of classifiers"):
        export(dense, tmp_path / "net", "pt2", images=images)
    with pytest.raises(SettingsError, match="choose one of pt2, onnx, aoti, web"):
        export(Net().eval(), tmp_path / "net", "tflite", images=images)
    with pytest.raises(InputError, match="give images"):
        export(Net().eval(), tmp_path / "net", "pt2")
    with pytest.raises(InputError, match="wrap the module in a Model"):
        export(Net().eval(), tmp_path / "net", "web", images=images)


def test_the_command_line(run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = run("export", "--to", "pt2", "-m", "mine.py:make", "--preset", "plain", "--k", "0.5")
    assert done.code == 0
    assert "supports" in done.out
    assert "4 of 4 supports" in done.out
    assert "identical" in done.out
    told = FORMATS["pt2"].read(tmp_path / "fbi-out" / "mine.pt2")
    assert told["inputs"]["k"] == 0.5
    wrong = run("export", "--to", "tflite", "-m", "mine.py:make")
    assert wrong.code == 2
    assert "choose one of" in wrong.err
