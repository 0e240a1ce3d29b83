"""Peers by name: the catalogue, what every method promises, and what is refused."""

from __future__ import annotations

import copy
import re
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchfbi
from peers.networks import Functional
from torchfbi import Model, Settings, TorchFBIError
from torchfbi.errors import (
    CaptureError,
    InputError,
    ModelError,
    NonFiniteError,
    SettingsError,
    TargetError,
    TrainingModeError,
)
from torchfbi.evaluate import peers
from torchfbi.evaluate.peers.captum import lime
from torchfbi.evaluate.peers.network import logits_of
from torchfbi.evaluate.peers.rise import rise

SIGNALS = [
    *("gradient", "guided-backprop", "deconvnet", "guided-grad-cam", "rectgrad"),
    "smoothgrad-squared",
]
LRP = ["captum-lrp", "zennit-epsilon-plus-flat", "zennit-epsilon-gamma-box"]
CONTRIBUTIONS = ["input-x-gradient", "integrated-gradients", "deeplift", *LRP]
WITH_CHANNELS = ["fbi", "fbi-paper", "fbi-plain", *SIGNALS, *CONTRIBUTIONS]
CAMS = ["grad-cam", "grad-cam++", "layer-cam", "finer-cam", "score-cam"]
EXCITATION = "contrastive-excitation-backprop"
CONTROLS = ["random", "centre", "edge", "gate", "edge-x-gate"]
NAMES = [*WITH_CHANNELS, "occlusion", "lime", "rise", EXCITATION, *CAMS, *CONTROLS]
SEEDED = {"lime", "rise", "random", "smoothgrad-squared"}


@pytest.fixture(scope="module")
def digits() -> nn.Module:
    return torchfbi.load("digits").module.requires_grad_(True)


@pytest.fixture(scope="module")
def strokes() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 1, 28, 28, generator=generator)


TARGET = torch.tensor([3, 7])


# The catalogue


def test_the_names_and_what_each_says_of_itself() -> None:
    assert set(peers.METHODS) == set(NAMES)
    for name, method in peers.METHODS.items():
        assert method.name == name
        assert peers.find(name) is peers.find(method) is method
        if method.family == "peer":
            assert re.search(r"[A-Z]\w+ .*\b(19|20)\d\d, section", method.source), method.source
    families = [method.family for method in peers.METHODS.values()]
    assert {family: families.count(family) for family in families} == {
        "fbi": 3,
        "peer": 21,
        "control": 5,
    }


def test_settings_are_methods(digits: nn.Module, strokes: Tensor) -> None:
    settings = Settings.paper(tau=0.0)
    own = peers.attribute(settings, digits, strokes, TARGET)
    assert torch.equal(own, torchfbi.explain(digits, strokes, TARGET, settings).values)
    assert own.any()
    for name, preset in (("fbi", "contrast"), ("fbi-plain", "plain"), ("fbi-paper", "paper")):
        values = peers.attribute(name, digits, strokes, TARGET)
        explained = torchfbi.explain(digits, strokes, TARGET, preset).values
        torch.testing.assert_close(values, explained, rtol=1e-4, atol=1e-8)
        assert torch.equal(values, peers.attribute(f"fbi:{preset}", digits, strokes, TARGET))


def test_unknown_names() -> None:
    with pytest.raises(SettingsError, match=r"'gradcam'. Did you mean grad-cam .*Known are fbi, "):
        peers.find("gradcam")
    with pytest.raises(SettingsError, match="preset 'papre' is unknown"):
        peers.find("fbi:papre")
    with pytest.raises(SettingsError, match="there is no method 3"):
        peers.find(3)  # type: ignore[arg-type]


def test_signals_count_by_magnitude_and_contributions_where_they_are_positive() -> None:
    values = torch.tensor([[[[1.0, -1.0]], [[-3.0, -1.0]], [[1.0, 5.0]]]]).double()
    signal, contribution = peers.find("gradient"), peers.find("grad-cam")
    assert torch.equal(signal.to_maps(values), torch.tensor([[[5.0, 7.0]]]))
    assert torch.equal(contribution.to_maps(values), torch.tensor([[[0.0, 3.0]]]))
    with pytest.raises(NonFiniteError, match="gradient gave NaN"):
        signal.to_maps(values / 0)


# What every method promises


def state(module: nn.Module) -> list[Any]:
    tensors = [
        (name, id(t), t.data_ptr(), t._version, t.requires_grad, t.grad)
        for name, t in (*module.named_parameters(), *module.named_buffers())
    ]
    parts = [
        (sorted(vars(m)), m.training, len(m._forward_hooks), len(m._backward_hooks))
        for m in module.modules()
    ]
    return [
        tensors,
        parts,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    ]


def quick(name: str) -> peers.Method:
    """The method; of those that draw at random, with fewer draws."""
    fewer = {"lime": partial(lime, samples=40), "rise": partial(rise, count=40)}
    method = peers.find(name)
    return replace(method, attribute=fewer.get(name, method.attribute))


@pytest.mark.parametrize("name", NAMES)
def test_every_method_on_the_digits(name: str, digits: nn.Module, strokes: Tensor) -> None:
    x, method = strokes.clone().requires_grad_(), quick(name)
    before, random_numbers = state(digits), torch.get_rng_state()
    weights = copy.deepcopy(digits.state_dict())
    values = peers.attribute(method, digits, x, TARGET, seed=5)
    assert state(digits) == before
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert all(torch.equal(weights[key], now) for key, now in digits.state_dict().items())
    assert values.shape == (2, 1, 28, 28)
    assert values.dtype == x.dtype
    assert not values.requires_grad
    assert x.grad is None
    assert torch.equal(x, strokes)
    assert bool(values.any()) == (name != "fbi-paper")  # its threshold is meant for VGG-16

    with torch.inference_mode():
        again = peers.attribute(method, digits, strokes.clone(), TARGET.clone(), seed=5)
        one = peers.attribute(method, digits, strokes[1:], 7, seed=5)
        maps = peers.maps(method, digits, strokes, TARGET, seed=5)
    assert torch.equal(again, values)
    torch.testing.assert_close(one, values[1:], rtol=1e-3, atol=1e-5)
    assert torch.equal(maps, method.to_maps(values))
    assert (maps.shape, maps.dtype) == ((2, 28, 28), torch.float32)
    assert (maps >= 0).all()
    other = peers.attribute(method, digits, strokes, TARGET, seed=6)
    assert torch.equal(other, values) == (name not in SEEDED)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_on_efficientnet_lite0(name: str, lite: Model) -> None:
    network = lite.module
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    target = network(x).argmax(1)
    before = state(network)
    method = quick(name)
    if name == "captum-lrp":
        with pytest.raises(CaptureError, match="passes over layers"):
            peers.attribute(method, network, x, target)
        assert state(network) == before
        return
    values = peers.attribute(method, network, x, target)
    assert values.shape == (1, 3 if name in WITH_CHANNELS else 1, 64, 64)
    if name != EXCITATION:  # of noise nothing is left at its finer feature
        assert bool(method.to_maps(values).any()) == (name != "fbi-paper")
    assert state(network) == before


def test_other_dtypes(digits: nn.Module, strokes: Tensor) -> None:
    network, x = copy.deepcopy(digits).double(), strokes[:1].double()
    digits_in_half = copy.deepcopy(digits).bfloat16()
    for name in NAMES:
        values = peers.attribute(name, network, x, TARGET[:1])
        assert values.dtype == torch.float64
        if name not in {*SEEDED, "score-cam", "rectgrad", "fbi"}:  # a rounding may select others
            single = peers.attribute(name, digits, strokes[:1], TARGET[:1])
            torch.testing.assert_close(values.float(), single, rtol=1e-3, atol=1e-4, msg=name)
        half = peers.maps(quick(name), digits_in_half, strokes[:1].bfloat16(), 3)
        assert half.any() == (name != "fbi-paper")


def test_the_network_that_peers_see_is_made_once_and_frozen(digits: nn.Module) -> None:
    network = logits_of(digits, torch.zeros(1, 1, 28, 28))
    assert network is logits_of(digits, torch.ones(3, 1, 28, 28))
    assert not any(p.requires_grad for p in network.parameters())


# What is refused


@pytest.mark.parametrize(
    ("x", "target", "error", "message"),
    [
        (torch.zeros(1, 28, 28), 0, InputError, r"\(N, C, H, W\)"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.int64), 0, InputError, "floating point"),
        (torch.full((1, 1, 28, 28), torch.nan), 0, NonFiniteError, "NaN"),
        (torch.zeros(1, 1, 28, 28), None, TargetError, "give its number"),
        (torch.zeros(1, 1, 28, 28), 10, TargetError, "there is no class"),
        (torch.zeros(2, 1, 28, 28), torch.tensor([1]), TargetError, "each of the 2 samples"),
    ],
)
def test_bad_input(
    digits: nn.Module, x: Tensor, target: Any, error: type[Exception], message: str
) -> None:
    for name in ("gradient", "centre", "fbi"):
        with pytest.raises(error, match=message):
            peers.attribute(name, digits, x, target)


def test_networks_that_peers_cannot_explain() -> None:
    x = torch.randn(2, 3, 8, 8)
    dense = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    with pytest.raises(TargetError, match="4 dimensions"):
        peers.attribute("gradient", dense, x, 0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    for name, message in (
        ("grad-cam", "no layer for a class activation"),
        ("gate", "no layer for a class"),
    ):
        with pytest.raises(CaptureError, match=message):
            peers.attribute(name, flat, x, 0)
    with pytest.raises(TrainingModeError):
        peers.attribute("edge", flat.train(), x, 0)


class OfTwo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 192)[:, :3]


def test_a_fixed_batch_size_is_refused_where_others_are_needed() -> None:
    network, x = OfTwo().eval(), torch.randn(2, 3, 8, 8)
    assert peers.attribute("gradient", network, x, 0).any()
    for name in ("rise", "integrated-gradients", "deeplift"):
        with pytest.raises(InputError, match="fixes the batch size to 2"):
            peers.attribute(name, network, x, 0)


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("captum.attr", "lime", "captum"),
        ("pytorch_grad_cam", "layer-cam", "gradcam"),
        ("zennit.composites", "zennit-epsilon-plus-flat", "zennit"),
    ],
)
def test_missing_libraries(
    package: str, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    network, x = Functional().eval(), torch.randn(1, 3, 16, 16)
    with pytest.raises(ModelError, match=rf"Install it: pip install 'torchfbi\[{extra}\]'"):
        peers.attribute(name, network, x, 0)
    assert peers.attribute("guided-backprop", network, x, 0).any()


def test_all_errors_are_of_the_family() -> None:
    with pytest.raises(TorchFBIError):
        peers.attribute("gradient", OfTwo().eval(), torch.randn(1, 3, 8, 8), 0)
