"""timm's classifiers by name: preprocessing, labels, and what is said when weights are missing."""

import json
import sys
import types
from pathlib import Path

import huggingface_hub as hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from torchfbi.cli.main import main
from torchfbi.errors import ModelError
from torchfbi.models import available, describe, load, parameters, timm
from torchfbi.models.images import Photo

WITHOUT_WEIGHTS = "cs3darknet_s"
library = timm.import_timm()


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "resnet18.tv_in1k",  # bilinear
        "mobilenetv3_small_050",
        "hgnetv2_b0",
        "tf_efficientnet_b0",
        "test_vit",
    ],
)
@pytest.mark.parametrize("shape", [(301, 500), (333, 200)])
def test_preprocessing_is_timms_own(name: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (shape[0] // 8, shape[1] // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    model = load(f"timm:{name}", pretrained=False)
    config = library.data.resolve_model_data_config(model.module)
    expected = library.data.create_transform(**config, is_training=False)(picture)
    ours, _ = model.preprocess(Photo.read(picture))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_a_squeezed_photo() -> None:
    whole = _preprocess_with({"input_size": (3, 32, 48), "crop_mode": "squash", "crop_pct": 1.0})
    assert (whole.fit, whole.size) == ("stretch", (32, 48))
    part = _preprocess_with({"input_size": (3, 27, 27), "crop_mode": "squash", "crop_pct": 0.9})
    assert (part.fit, part.resize, part.crop) == ("crop", 30, 27)


def test_a_grey_network() -> None:
    grey = _preprocess_with({"input_size": (1, 28, 28), "mean": (0.1,), "std": (0.3,)})
    assert grey.channels == "L"


def _preprocess_with(config: dict) -> timm.Preprocess:
    module = torch.nn.Identity()
    module.pretrained_cfg = {"interpolation": "bicubic", **config}
    return timm._preprocess(library, module)


def test_a_loaded_network() -> None:
    model = load("timm:test_resnet", pretrained=False)
    assert model.name == "timm:test_resnet"
    assert not model.module.training
    assert not any(p.requires_grad for p in model.module.parameters())
    assert model.labels[281] == "tabby cat"


@pytest.mark.parametrize(
    ("classes", "first"), [(1000, "tench"), (21843, "organism"), (11821, None), (10, "class 0")]
)
def test_labels_are_those_of_the_dataset(classes: int, first: str | None) -> None:
    module = torch.nn.Identity()
    module.num_classes, module.num_features, module.pretrained_cfg = classes, 7, {}
    labels = timm._labels(library, module)
    assert len(labels) == classes
    assert first is None or labels[0] == first


def test_names_and_descriptions() -> None:
    names = available()
    assert {"timm:resnet50", "timm:resnet50.a1_in1k"} <= set(names)
    listing = describe("timm:resnet50.a1_in1k")
    assert (listing.name, listing.input, listing.source) == (
        "timm:resnet50.a1_in1k", "224x224", "timm",
    )  # fmt: skip
    assert listing.weights in ("on disk", "to download")
    assert describe(f"timm:{WITHOUT_WEIGHTS}").weights == "none"


@pytest.fixture
def empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if timm were newer than the table of parameters."""
    monkeypatch.setattr(parameters, "_table", dict)


@pytest.mark.usefixtures("empty_table")
def test_parameters_are_counted_without_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe("timm:test_resnet").parameters is None
    built = load("timm:test_resnet", pretrained=False).module
    known = sum(p.numel() for p in built.parameters())
    assert describe("timm:test_resnet", count=True).parameters == known
    monkeypatch.setattr(library, "create_model", lambda name: [][0])
    assert describe("timm:test_resnet", count=True).parameters is None


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "resnet50.a1_in1k", "convnext_atto", "resnetv2_50x1_bit.goog_in21k"],
)
def test_the_table_of_parameters_is_right(name: str) -> None:
    assert describe(f"timm:{name}").parameters == timm.count(name)


def test_the_table_knows_all_architectures() -> None:
    unknown = [name for name in timm.names() if parameters.known(f"timm:{name}") is None]
    assert not unknown


@pytest.mark.usefixtures("empty_table")
def test_the_list_counts_parameters_of_few_networks(capsys: pytest.CaptureFixture[str]) -> None:
    def listed(*arguments: str) -> tuple[str, str]:
        with pytest.raises(SystemExit) as left:
            main(["models", *arguments])
        assert left.value.code == 0
        return capsys.readouterr()

    few, notes = listed("timm:test_resnet*", "--json")
    assert {row["parameters"] for row in json.loads(few)} == {469688}
    assert not notes
    many, _ = listed("timm:test_*", "--json")
    assert {row["parameters"] for row in json.loads(many)} == {None}
    assert "up to 20 rows" in listed("timm:test_*")[1]


def test_an_unknown_name_suggests_others() -> None:
    with pytest.raises(ModelError, match=r"no model 'timm:resnet5o'.*timm:resnet5"):
        load("timm:resnet5o")


def test_missing_weights_say_what_to_download_to_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as error:
        load("timm:test_resnet.r160_in1k")
    message = str(error.value)
    assert "\n" not in message
    assert "hf download timm/test_resnet.r160_in1k" in message
    assert f"models--timm--test_resnet.r160_in1k to {hub.constants.HF_HUB_CACHE}" in message


def test_without_a_connection_it_does_not_try_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def head(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub, "get_session", lambda: types.SimpleNamespace(head=head))
    with pytest.raises(ModelError, match=r"Name or service not known.*hf download timm/"):
        load("timm:test_resnet.r160_in1k")
    assert asked == [hub.constants.ENDPOINT]
    assert not [record for record in caplog.records if record.name.startswith("huggingface")]


def test_weights_in_the_cache_need_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    saved = load("timm:test_resnet", pretrained=False).module.state_dict()
    save_file(saved, tmp_path / "model.safetensors")

    def cached(place: str, name: str) -> str:
        assert place == "timm/test_resnet.r160_in1k"
        return str(tmp_path / name)

    monkeypatch.setattr(hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(hub, "get_session", pytest.fail)
    assert describe("timm:test_resnet").weights == "on disk"
    loaded = load("timm:test_resnet").module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in saved.items())


def test_an_architecture_without_weights() -> None:
    with pytest.raises(ModelError, match="timm publishes no weights"):
        load(f"timm:{WITHOUT_WEIGHTS}")


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="pip install timm"):
        load("timm:resnet18", pretrained=False)
