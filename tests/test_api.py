"""``explain`` and ``Explanation``: every kind of input and target, saving, loading, showing."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from photos import CAT, COFFEE
from torchfbi import (
    Explanation,
    Labels,
    Model,
    Photo,
    Preprocess,
    Settings,
    explain,
    load,
    verify,
)
from torchfbi.errors import (
    FileFormatError,
    ImageError,
    InputError,
    ModelError,
    SettingsError,
    TargetError,
)
from torchfbi.explanation.notebook import Flow
from torchfbi.method import evidence


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 256, 3)
    ).eval()
    preprocess = Preprocess(resize=16, crop=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Model(net, preprocess, Labels(["cat", "dog", "cup"]), "toy")


def test_every_kind_of_image(model: Model) -> None:
    photo = Photo.read(CAT)
    expected = explain(model, CAT)
    sources = [str(CAT), CAT.read_bytes(), Image.open(CAT), photo, photo.pixels]
    for source in sources:
        assert torch.equal(explain(model, source).values, expected.values)
    tensor, _ = model.preprocess(photo)
    assert torch.equal(explain(model, tensor[None]).values, expected.values)
    assert len(explain(model, sources)) == len(sources)


def test_every_kind_of_target(model: Model) -> None:
    photos = [CAT, COFFEE]
    top = explain(model, photos)
    assert torch.equal(top.target, top.logits.argmax(1))
    for target, expected in [
        (2, [2, 2]),
        ("cup", [2, 2]),
        ("1", [1, 1]),
        (["dog", 2], [1, 2]),
        (torch.tensor([0, 1]), [0, 1]),
        (np.int64(2), [2, 2]),
        (np.array([1, 2]), [1, 2]),
        ([np.int64(1), torch.tensor(2)], [1, 2]),
        ("top2", top.logits.argsort(1, descending=True)[:, 1].tolist()),
        (["top2", "cup"], [int(top.logits[0].argsort()[-2]), 2]),
        (["top1", "top3"], [int(top.logits[0].argmax()), int(top.logits[1].argmin())]),
        (lambda z: z.argmin(1), top.logits.argmin(1).tolist()),
        (lambda z: [1, 2], [1, 2]),
    ]:
        assert explain(model, photos, target).target.tolist() == expected
    seeded = explain(model, photos, lambda z: torch.ones_like(z))
    assert seeded.target is None
    assert seeded.title() == "a question of your own"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mouse", "mouse"),
        (7, "3 classes, 0 to 2"),
        ("7", "3 classes, 0 to 2"),
        ("top9", r"top9: .* \(1, 3\), not .* at least 9 classes"),
        (["top9"], "at least 9 classes"),
        ([], "0 targets were given for 1 image"),
        (1.5, "must hold class numbers"),
        ([1.5], "must hold class numbers"),
        ({1: 2}, "give class numbers or names"),
    ],
)
def test_targets_that_do_not_exist(model: Model, target: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        explain(model, CAT, target)


def test_several_targets_of_one_photo(model: Model) -> None:
    """Each sample is the target's own explanation."""
    several = explain(model, CAT, ["dog", "top1", 2], record=True)
    assert len(several) == 3
    for one, target in zip(several, ["dog", "top1", 2], strict=True):
        alone = explain(model, CAT, target, record=True)
        torch.testing.assert_close(one.values, alone.values)
        assert torch.equal(one.support, alone.support)
        assert torch.equal(one.target, alone.target)
        assert one.title() == alone.title()
        assert (one.photos[0].name, one.regions) == (alone.photos[0].name, alone.regions)
        assert [s.shape for _, s, _ in one.layers] == [s.shape for _, s, _ in alone.layers]
        assert one.flow[0].signal.shape == alone.flow[0].signal.shape
    assert torch.equal(several[-1].values, several.values[2:])
    with pytest.raises(IndexError):
        several[3]
    with pytest.raises(TargetError, match="2 targets were given for 3 image"):
        explain(model, [CAT] * 3, [0, 1])


def test_other_refusals(model: Model) -> None:
    with pytest.raises(InputError, match="no image"):
        explain(model, [])
    with pytest.raises(InputError, match=r"wrap it in a torchfbi\.Model"):
        explain(model.module, CAT)
    with pytest.raises(InputError, match=r"shape \(3, 16\): give \(N, C, \.\.\.\)"):
        explain(model, torch.zeros(3, 16))
    with pytest.raises(TargetError, match="no labels"):
        explain(model.module, torch.zeros(1, 3, 16, 16), "cat")
    with pytest.raises(ModelError, match="efficientnet-lite0"):
        explain("efficientnet-lite9", CAT)
    with pytest.raises(ImageError, match=r"nowhere\.jpg"):
        explain(model, "nowhere.jpg")
    with pytest.raises(SettingsError, match="preset"):
        explain(model, CAT, settings="paperr")
    with pytest.raises(SettingsError, match="settings are 3"):
        explain(model, CAT, settings=3)
    with pytest.raises(SettingsError, match="no photo"):
        explain(model, torch.zeros(1, 3, 16, 16)).on_photo()


def test_what_an_explanation_holds(model: Model) -> None:
    explanation = explain(model, [CAT, COFFEE], "dog", Settings.contrast(), record=True)
    assert explanation.values.shape == (2, 3, 16, 16)
    assert explanation.support.dtype == torch.bool
    assert torch.equal(explanation.evidence, explanation.values.sum(1))
    assert torch.equal(explanation.support, evidence.support(explanation.evidence))
    assert [layer.layer for layer in explanation.layers] == ["1", "image"]
    assert torch.equal(explanation.layers[-1].support, explanation.support)
    assert [seen.layer for seen in explanation.flow] == ["1", "image"]
    assert not explain(model, CAT).flow
    assert "dog" in repr(explanation)
    heat = explanation.to_heatmap()
    assert heat.shape == (2, 16, 16)
    assert 0 <= heat.min() <= heat.max() == 1
    assert torch.equal(heat > 0, explanation.evidence > 0)
    assert (heat[explanation.support] > 0).all()


def test_values_return_to_the_photos_own_pixels(model: Model) -> None:
    """Only the square in the middle of a wide photo was seen."""
    photo = Photo.read(COFFEE)
    height, width = photo.shape
    values, support = explain(model, photo).on_photo()
    assert values.shape == (3, height, width)
    assert support.shape == (height, width)
    margin = (width - height) // 2
    assert not support[:, : margin - 1].any()
    assert not support[:, width - margin + 1 :].any()
    assert support[:, margin:-margin].any()
    assert not values[:, ~support].any()


def test_the_round_trip_through_a_file(model: Model, tmp_path: Path) -> None:
    explanation = explain(model, [CAT, COFFEE], "cat", Settings.paper(tau=0.0, k=0.5))
    path = explanation.save(tmp_path / "new" / "cat")
    assert sorted(p.name for p in path.parent.iterdir()) == ["cat.json", "cat.npz"]
    loaded = Explanation.load(path)
    for name in ("values", "logits", "target", "support"):
        assert torch.equal(getattr(loaded, name), getattr(explanation, name))
    for name in ("settings", "labels", "model", "versions", "regions"):
        assert getattr(loaded, name) == getattr(explanation, name)
    for ours, theirs in zip(loaded.layers, explanation.layers, strict=True):
        assert ours.layer == theirs.layer
        assert torch.equal(ours.support, theirs.support)
    assert np.array_equal(loaded.photos[1].pixels, explanation.photos[1].pixels)
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest == json.loads(json.dumps(loaded.manifest()))
    assert manifest["schema"] == 1
    assert manifest["values"] == "signal"
    for name in ("run.1", "run.2"):
        assert explanation.save(tmp_path / name).name == f"{name}.npz"
    bfloat = explain(model.module.bfloat16(), torch.rand(1, 3, 16, 16).bfloat16())
    assert torch.equal(Explanation.load(bfloat.save(tmp_path / "b")).values, bfloat.values.float())
    from_tensor = explain(model.module.float(), torch.rand(1, 3, 16, 16))
    assert torch.equal(
        Explanation.load(from_tensor.save(tmp_path / "t")).values, from_tensor.values
    )


def test_what_is_no_explanation_is_refused(tmp_path: Path) -> None:
    """Damaged and hostile ones: tests/hostile."""
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_bytes(b"hello")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name in ("missing.npz", "empty.npz", "text.npz", "zip.npz"):
        with pytest.raises(FileFormatError, match=name):
            Explanation.load(tmp_path / name)


def test_an_interrupted_save_leaves_the_old_file(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explanation = explain(model, CAT)
    path = explanation.save(tmp_path / "cat.npz")
    before = path.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        explanation.save(path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_notebooks_see_a_picture(model: Model) -> None:
    png = explain(model, CAT)._repr_png_()
    assert png is not None
    assert Image.open(io.BytesIO(png)).format == "PNG"
    flow = explain(model, CAT, record=True).flow
    assert isinstance(flow, Flow)
    png = flow._repr_png_()
    assert png is not None
    assert Image.open(io.BytesIO(flow._repr_png_())).format == "PNG"
    assert Flow(flow)._repr_png_() is None  # nobody knows of which image
    line = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)).eval()
    assert explain(line, torch.rand(1, 2, 8))._repr_png_() is None


def test_half_precision_models_take_photos() -> None:
    lite = load("efficientnet-lite0")
    half = Model(lite.module.bfloat16(), lite.preprocess, lite.labels, "half")
    explanation = explain(half, CAT)
    assert explanation.values.dtype == torch.bfloat16
    assert "cat" in explanation.top(1)[0][1]
    assert explanation.to_heatmap().any()


@pytest.mark.parametrize(
    ("head", "probabilities"),
    [
        (nn.Identity(), lambda z: z.softmax(1)),
        (nn.Softmax(1), lambda z: z.softmax(1)),
        (nn.LogSoftmax(1), lambda z: z.softmax(1)),
        (nn.Sigmoid(), torch.sigmoid),
    ],
)
def test_probabilities_are_those_of_the_networks_own_head(
    model: Model, head: nn.Module, probabilities: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    own = replace(model, module=nn.Sequential(model.module, head).eval())
    explanation = explain(own, CAT, "dog")
    assert torch.equal(explanation.logits, explain(model, CAT).logits)
    expected = probabilities(explanation.logits)
    torch.testing.assert_close(explanation.probabilities, expected)
    best = {name: p for _, name, p in explanation.top()}
    assert best == pytest.approx(dict(zip(model.labels, expected[0].tolist(), strict=True)))
    assert explanation.title() == f"dog ({expected[0, 1]:.1%})"
    loaded = Explanation.load(explanation.save(tmp_path / "e.npz"))
    assert torch.equal(loaded.probabilities, explanation.probabilities)


def test_a_file_without_a_head_is_of_a_softmax(model: Model, tmp_path: Path) -> None:
    path = explain(model, CAT).save(tmp_path / "e.npz")
    with np.load(path) as arrays:
        old = dict(arrays)
    manifest = json.loads(str(old["manifest"]))
    del manifest["head"]
    np.savez(path, **{**old, "manifest": np.array(json.dumps(manifest))})
    assert Explanation.load(path).probabilities.sum().item() == pytest.approx(1)
    for wrong in ({"head": "tanh"}, {"labels": ["cat", "dog"]}, {"fitting_tau": "1"}):
        np.savez(path, **{**old, "manifest": np.array(json.dumps({**manifest, **wrong}))})
        with pytest.raises(FileFormatError, match="not an explanation"):
            Explanation.load(path)


@pytest.mark.parametrize("mode", [lambda: torch.autocast("cpu"), lambda: torch.device("meta")])
def test_the_callers_modes_change_nothing(model: Model, mode: Any) -> None:
    """Where its code is cast by itself, or its tensors lie elsewhere by default."""
    nets = [model.module, copy.deepcopy(model.module)]
    x = torch.rand(2, 3, 16, 16)
    right = explain(nets[0], x, 1)
    with mode():
        for net in nets:  # one that is known, and one that is not
            found = explain(net, x, 1)
            assert torch.equal(found.values, right.values)
            assert torch.equal(found.logits, right.logits)
        (verdict, _) = explain(nets[0], x, 1).verify()
    assert verdict.to_dict() == right.verify()[0].to_dict()


def test_a_network_of_one_logit(model: Model) -> None:
    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x).mean((1, 2, 3))[:, None]

    explanation = explain(One().eval(), torch.rand(1, 3, 8, 8))
    assert explanation.target.tolist() == [0]
    assert explanation.support.any()
    torch.testing.assert_close(explanation.probabilities, explanation.logits.sigmoid())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("-1", "not clear"),
        ("+1", "not clear"),
        ("1.0", "not clear"),
        ("1.", "not clear"),
        ("1e2", "not clear"),
        (".5", "not clear"),
        pytest.param("9" * 10_000, "not clear", id="digits"),
        pytest.param("top" + "9" * 5000, "No class is called", id="top digits"),
        ("top-1", "No class is called"),
        ("top0", "No class is called"),
        ("17", "there is no class"),
        (-1, "there is no class"),
        (1.0, "class numbers, not"),
        (True, "not torch.bool"),
        pytest.param(10**5000, "thousands of digits", id="endless"),
        pytest.param([10**5000], "thousands of digits", id="endless in a list"),
        (10**30, "class numbers or names"),
        (float("nan"), "class numbers, not"),
        (1j, "not torch.complex"),
        ([True], "class numbers or names"),
        (np.uint64(2**63 + 1), "there is no class"),
        ("", "No class"),
    ],
)
def test_targets_that_could_be_another_class(model: Model, target: Any, message: str) -> None:
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(TargetError, match=message):
        explain(model, x, target)


@pytest.mark.parametrize("target", [" 1 ", "1", 1, np.int64(1), torch.tensor(1), "DOG", ["1"]])
def test_targets_that_are_the_class(model: Model, target: Any) -> None:
    assert explain(model, torch.rand(1, 3, 16, 16), target).target.tolist() == [1]


def test_labels_that_are_numbers(model: Model) -> None:
    """The number of one class may be the name of another."""
    x, digits = torch.rand(1, 3, 16, 16), replace(model, labels=Labels(["0", "1", "2"]))
    assert explain(digits, x, "2").target.tolist() == [2]
    shifted = replace(model, labels=Labels(["-1", "0", "1"]))
    assert explain(shifted, x, "-1").target.tolist() == [0]
    with pytest.raises(TargetError, match=r"'1' is not clear.*name of class 2\."):
        explain(shifted, x, "1")
    assert explain(shifted, x, 1).target.tolist() == [1]
    ranked = replace(model, labels=Labels(["top2", "a", "b"]))
    with pytest.raises(TargetError, match="a rank and the name of a class"):
        explain(ranked, x, "top2")
    twice = replace(model, labels=Labels(["crane", "crane", "dog"]))
    with pytest.raises(TargetError, match="fits 2 classes"):
        explain(twice, x, "crane")


def test_labels_and_preprocessing_of_other_kinds(model: Model) -> None:
    listed = Model(model.module, model.preprocess, ["cat", "dog", "cup"], "toy")  # type: ignore[arg-type]
    assert explain(listed, CAT, "cup").target.tolist() == [2]
    for wrong in ("cat", None, [1, 2], {}):
        with pytest.raises(ModelError, match=r"labels are .*names of all classes"):
            Model(model.module, model.preprocess, wrong, "toy")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"preprocessing is a builtins\.function.*Preprocess\("):
        Model(model.module, lambda photo: photo, model.labels, "toy")  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="2 labels, but its output has 3 classes"):
        explain(replace(model, labels=Labels(["cat", "dog"])), CAT, 0)


def test_labels_are_not_those_of_another_output(model: Model) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            logits = model.module(x)
            return {"out": logits, "aux": logits.flip(1)[:, :2]}

    two = replace(model, module=Two().eval())
    assert explain(two, CAT, "dog", output="out").title().startswith("dog")
    assert explain(two, CAT, 1, output="aux").title().startswith("class 1")
    maps = explain(two, CAT, 1, output="aux").evidence
    with pytest.raises(TargetError, match="no labels"):
        explain(two, CAT, "dog", output="aux")
    with pytest.raises(TargetError, match="no labels"):
        verify(two, CAT, maps, "dog", output="aux")


@pytest.mark.parametrize(
    "source", ["https://example.org/a.png", "s3://bucket/a.png", "http:/a.b/c"]
)
def test_addresses_are_not_fetched(model: Model, source: str) -> None:
    with pytest.raises(ImageError, match="is an address: download"):
        explain(model, source)
