"""Files of weights by their content: whatever they are called, whatever is around the weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from torchfbi import Labels, Model, Preprocess, load
from torchfbi.errors import ModelError
from torchfbi.models.weights import kind_of, with_weights


def network() -> Model:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    preprocess = Preprocess(8, 8, [0.5] * 3, [0.5] * 3)
    return Model(net.eval(), preprocess, Labels(["a", "b"]), "mine")


def state(value: float = 0.25) -> dict[str, Tensor]:
    return {k: torch.full_like(v, value) for k, v in network().module.state_dict().items()}


def prefixed(front: str) -> dict[str, Tensor]:
    return {front + name: value for name, value in state().items()}


@pytest.mark.parametrize(
    "name", ["a.pth", "a.pth.tar", "a.ckpt", "pytorch_model.bin", "a.weights", "a", "a.h5.pt"]
)
@pytest.mark.parametrize("old", [False, True])
def test_any_name(tmp_path: Path, name: str, old: bool) -> None:
    torch.save(state(), tmp_path / name, _use_new_zipfile_serialization=not old)
    loaded = with_weights(network(), tmp_path / name)
    assert all((value == 0.25).all() for value in loaded.module.parameters())


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.pt"])
def test_safetensors_under_any_name(tmp_path: Path, name: str) -> None:
    save_file(state(), tmp_path / name)
    assert kind_of(tmp_path / name) == "safetensors"
    loaded = with_weights(network(), tmp_path / name)
    assert all((value == 0.25).all() for value in loaded.module.parameters())


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": state(), "epoch": 3},
        {"net": state(), "acc": 0.9},
        {"model_state": state()},
        {"network": {"state_dict": state()}},
        {"weights": state(), "args": argparse.Namespace(lr=0.1)},
        {"state_dict": prefixed("model.")},
        {"state_dict": {**prefixed("net."), "loss.weight": torch.ones(3)}},
        prefixed("module."),
        prefixed("_orig_mod.module."),
        prefixed("module.encoder.backbone."),
        {k: v for k, v in state().items() if "num_batches" not in k},
    ],
)
def test_what_is_around_the_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    loaded = with_weights(network(), tmp_path / "a.pt")
    assert all((value == 0.25).all() for value in loaded.module.parameters())


def test_several_networks_in_one_file(tmp_path: Path) -> None:
    torch.save(prefixed("student.") | prefixed("teacher."), tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"several such networks, student\., teacher\."):
        with_weights(network(), tmp_path / "a.pt")


def test_a_head_with_other_classes(tmp_path: Path) -> None:
    fine_tuned = {**state(), "3.weight": torch.ones(5, 144), "3.bias": torch.zeros(5)}
    torch.save(fine_tuned, tmp_path / "a.pt")
    loaded = with_weights(network(), tmp_path / "a.pt")
    assert torch.equal(loaded.module[3].weight, fine_tuned["3.weight"])
    assert not any(value.requires_grad for value in loaded.module[3].parameters())
    assert list(loaded.labels) == list(Labels.numbered(5))
    torch.save({**fine_tuned, "3.weight": torch.ones(5, 143)}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="size mismatch for 3"):
        with_weights(network(), tmp_path / "a.pt")


def test_weights_of_another_network_still_do_not_fit(tmp_path: Path) -> None:
    torch.save({f"model.{k}": v for k, v in state().items() if "3" not in k}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="does not fit mine: Missing key"):
        with_weights(network(), tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whole_networks_are_named_as_what_they_are(tmp_path: Path) -> None:
    torch.jit.trace(network().module, torch.rand(1, 3, 8, 8)).save(tmp_path / "scripted.pt")
    torch.save(network().module, tmp_path / "whole.pth")
    with pytest.raises(ModelError, match=r"TorchScript network.*torch\.export\.save"):
        load(str(tmp_path / "scripted.pt"))
    with pytest.raises(ModelError, match=r"whole network \(TorchScript\), no state dict"):
        with_weights(network(), tmp_path / "scripted.pt")
    with pytest.raises(ModelError, match=r"pickled module \(torch\.nn\.modules.*state_dict"):
        load(str(tmp_path / "whole.pth"))
    with pytest.raises(ModelError, match=r"could run code.*a whole module"):
        with_weights(network(), tmp_path / "whole.pth")
    (tmp_path / "a.txt").write_text("hello, this is a text")
    with pytest.raises(ModelError, match="neither a network nor"):
        load(str(tmp_path / "a.txt"))
    (tmp_path / "a.bin").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(ModelError, match="weights for Keras"):
        load("efficientnet-lite0", weights=tmp_path / "a.bin")


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export's own
def test_an_exported_program_under_any_name(tmp_path: Path) -> None:
    program = torch.export.export(network().module, (torch.rand(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "a.pt2")
    (tmp_path / "a.pt2").rename(tmp_path / "a.pt")
    assert kind_of(tmp_path / "a.pt") == "program"
    assert len(load(str(tmp_path / "a.pt")).labels) == 2
    with pytest.raises(ModelError, match=r"whole network \(program\)"):
        with_weights(network(), tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
    ],
)
def test_what_was_downloaded_instead_is_told(start: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(start)
    with pytest.raises(ModelError, match=told):
        with_weights(network(), tmp_path / "net.pth")
    for name in ("net.pth", "net.onnx"):
        (tmp_path / name).write_bytes(start)
        with pytest.raises(ModelError, match=told):
            load(str(tmp_path / name))


def test_a_header_as_long_as_the_number_of_a_bracket_is_no_web_page(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'
    start = len(header).to_bytes(8, "little")
    assert start.startswith(b"<")
    (tmp_path / "net.safetensors").write_bytes(start + header + b"1")
    assert kind_of(tmp_path / "net.safetensors") == "safetensors"
    with pytest.raises(ModelError, match="does not fit mine"):
        with_weights(network(), tmp_path / "net.safetensors")


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of quantised tensors
def test_quantised_weights_are_named(tmp_path: Path) -> None:
    quantised = {k: v for k, v in state().items() if v.is_floating_point()}
    quantised["0.weight"] = torch.quantize_per_tensor(quantised["0.weight"], 0.1, 0, torch.qint8)
    for weight in (quantised["0.weight"], quantised["0.weight"].int_repr()):
        torch.save({**state(), "0.weight": weight}, tmp_path / "a.pt")
        with pytest.raises(ModelError, match="weights are quantised"):
            with_weights(network(), tmp_path / "a.pt")
