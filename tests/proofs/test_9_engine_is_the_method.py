"""Proof 9: the engine is the method.

Over random networks of one to three dimensions (plain, bottlenecks with shortcuts, squeezed ones,
tied layers, dense layers, pools of both kinds) and random settings, the engine's supports are the
method's bit for bit and its values to 1e-9: for several samples, several targets of one image, in
low memory, and from a forward pass that is remembered. Proof 1 holds every faster rule against its
pure twin.
"""

from __future__ import annotations

import copy
from typing import Any, get_args
from unittest.mock import patch

import pytest
import torch
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from photos import CAT
from torchfbi import ForwardBackward, Model, Settings
from torchfbi.engine import linear, sparse
from torchfbi.explanation.reuse import Forwards, Reusing
from torchfbi.method.evidence import support_of_values
from torchfbi.method.settings import Gates, Pooling, SeedKind
from torchfbi.method.walk import explain
from torchfbi.models.images import Photo

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN_POOL = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
WIDTH, CLASSES = 8, 5


class Bottleneck(nn.Module):
    """Wide, a filter for each map, narrow; with a shortcut, and squeezed or not."""

    def __init__(self, dims: int, squeezed: bool, active: nn.Module) -> None:
        super().__init__()
        conv = CONVOLUTION[dims]
        self.wide, self.each = conv(WIDTH, 16, 1), conv(16, 16, 3, padding=1, groups=16)
        self.narrow, self.active = conv(16, WIDTH, 1), active
        self.gate = nn.Sequential(MEAN_POOL[dims](1), conv(16, 16, 1), nn.Sigmoid())
        self.squeezed = squeezed

    def forward(self, x: Tensor) -> Tensor:
        y = self.active(self.each(torch.relu(self.wide(x))))
        return self.narrow(y * self.gate(y) if self.squeezed else y) + x


class Tied(nn.Module):
    """One matrix with two biases."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.first, self.second = (nn.Parameter(torch.randn(WIDTH)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        once = nn.functional.linear(x, self.weight, self.first)
        return nn.functional.linear(torch.relu(once), self.weight, self.second)


def active(draw: Any) -> nn.Module:
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Tanh, nn.LeakyReLU)
    return draw(st.sampled_from(kinds))()


def network(draw: Any, dims: int) -> nn.Module:
    """A few layers, drawn."""
    conv = CONVOLUTION[dims]
    stride = draw(st.sampled_from([1, 2]))
    layers: list[nn.Module] = [conv(2, WIDTH, 3, stride, 1), active(draw)]
    for kind in draw(st.lists(st.sampled_from("cbsmop"), min_size=1, max_size=4)):
        layers += {
            "c": lambda: [conv(WIDTH, WIDTH, 3, 1, 1), active(draw)],
            "b": lambda: [Bottleneck(dims, False, active(draw))],
            "s": lambda: [Bottleneck(dims, True, active(draw)), active(draw)],
            "m": lambda: [MAX_POOL[dims](2, ceil_mode=True)],
            "o": lambda: [MAX_POOL[dims](3, 1, 1)],
            "p": lambda: [nn.BatchNorm1d(WIDTH) if dims == 1 else conv(WIDTH, WIDTH, 1)],
        }[kind]()
    layers += [conv(WIDTH, WIDTH, 1), nn.ReLU(), MEAN_POOL[dims](1), nn.Flatten()]
    if draw(st.booleans()):
        layers += [Tied(), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES)).eval().double()


@st.composite
def any_settings(draw: Any) -> Settings:
    return Settings(
        seed=draw(st.sampled_from(get_args(SeedKind))),
        gamma=draw(st.sampled_from([0.0, 0.25, 3.0])),
        tau=draw(st.sampled_from([None, 0.0, 1e-4])),
        k=draw(st.sampled_from([0.3, 0.5, 1.0])),
        gates=draw(st.sampled_from(get_args(Gates))),
        pooling=draw(st.sampled_from(get_args(Pooling))),
        subtract_bias=draw(st.booleans()),
        values=draw(st.sampled_from(["signal", "evidence"])),
    )


def agree(found: Tensor, expected: Tensor, settings: Settings) -> None:
    scale = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * scale)
    if settings.values == "signal":  # the support of evidence ends where roundings decide
        assert torch.equal(found != 0, expected != 0)


@hypothesis_settings(phases=[Phase.generate])  # a capture each: no shrinking
@given(data=st.data(), settings=any_settings())
def test_the_engine_is_the_method(data: st.DataObject, settings: Settings) -> None:
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    dims, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    net = network(data.draw, dims)
    sizes = data.draw(st.lists(st.integers(7, 9), min_size=dims, max_size=dims))
    x, target = torch.randn(count, 2, *sizes).double(), torch.arange(count)
    fbi = ForwardBackward(net, x, settings, low_memory=data.draw(st.booleans()))
    given = fbi.graph, fbi.graph.tensors, settings
    expected, logits = explain(*given, x, target)
    worth = {"matrix": (1, 1, data.draw(st.sampled_from([0, 10**6]))), "window": (1, 1, 10**6)}
    large, threads = data.draw(st.sampled_from([10, 10**6])), data.draw(st.integers(1, 3))
    with (
        patch.multiple(sparse, _WORTH=worth, _SHARED=9.0),
        patch.multiple(linear, _LARGE=large, _BLOCK=16),
        patch.object(torch, "get_num_threads", lambda: threads),
    ):
        values, answer = fbi(x, target)
        agree(values, expected, settings)
        assert torch.allclose(answer, logits, rtol=1e-12)
        several, _ = fbi.each(x, [0, 3])
        for one, asked in zip(several, (0, 3), strict=True):
            agree(one, explain(*given, x, asked)[0], settings)
        again = Reusing(net, x, settings, forwards=Forwards())
        for asked in (1, target):
            agree(again(x, asked)[0], explain(*given, x, asked)[0], settings)


@pytest.mark.parametrize("name", ["paper", "contrast"])
def test_on_a_photo_in_float32(name: str, lite: Model) -> None:
    """With packed weights, products by oneDNN and maps innermost."""
    x = lite.preprocess(Photo.read(CAT))[0][None]
    settings = Settings.from_preset(name, tau=0.0 if name == "paper" else None)
    fbi = ForwardBackward(lite.module, x, settings)
    values, _ = fbi(x)
    expected, _ = explain(fbi.graph, fbi.graph.tensors, settings, x)
    largest = expected.abs().max().item()
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5 * largest)
    differ = support_of_values(values, settings) != support_of_values(expected, settings)
    assert differ.float().mean() <= 1e-3


def test_in_half_precision() -> None:
    """As near to the exact answer as the method itself in bfloat16."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1, groups=32), nn.ReLU(),
        nn.Conv2d(32, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip
    x, settings = torch.randn(2, 3, 24, 24).bfloat16(), Settings.contrast(values="signal")
    wide = copy.deepcopy(net.bfloat16()).double()
    exact, _ = ForwardBackward(wide, x.double(), settings)(x.double(), 1)
    half = ForwardBackward(net, x, settings)
    pure, _ = explain(half.graph, half.graph.tensors, settings, x, 1)
    off = [(values.double() - exact).norm().item() for values in (half(x, 1)[0], pure)]
    assert off[0] < 1.5 * off[1] < 0.1 * exact.norm()


class Broadcast(nn.Module):
    """One map is added to sixteen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(8, 1, 3)
        self.d, self.head = nn.Conv2d(16, 4, 3), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        y = torch.relu(self.b(x) + self.c(x))
        return self.head(torch.relu(self.d(y)).mean((2, 3)))


class Token(nn.Module):
    """Its batch is the second dimension of one token."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x)).mean((2, 3)).unsqueeze(1).transpose(0, 1)
        y = y + torch.relu(self.b(y))
        return self.head(y.transpose(0, 1).squeeze(1))


class Written(nn.Module):
    """A part of its maps is written over, and its powers are of broadcast numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 3), nn.Linear(8, CLASSES)
        self.powers = nn.Parameter(1 + torch.rand(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        y = torch.slice_scatter(y, torch.zeros_like(y[:, :1]), 1, 0, 1)
        y = (torch.relu(self.b(y)) + 0.1) ** self.powers
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("kind", [Broadcast, Token, Written])
def test_on_what_is_rare(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net, x = kind().eval().double(), torch.randn(2, 3, 12, 12).double()
    for settings in (Settings.paper(tau=0.0), Settings.contrast(), Settings(k=0.5, gamma=0.25)):
        fbi = ForwardBackward(net, x, settings)
        for count in (2, 1, 0):
            values, _ = fbi(x[:count], 1)
            agree(
                values, explain(fbi.graph, fbi.graph.tensors, settings, x[:count], 1)[0], settings
            )
        several, _ = fbi.each(x[:1], [0, 1])
        for one, asked in zip(several, (0, 1), strict=True):
            agree(one, explain(fbi.graph, fbi.graph.tensors, settings, x[:1], asked)[0], settings)


def test_other_settings_may_be_set_at_any_time() -> None:
    torch.manual_seed(0)
    net, x = network_of_one(), torch.randn(2, 3, 12, 12).double()
    fbi = ForwardBackward(net, x, Settings.contrast())
    for settings in (Settings.plain(), Settings.paper(tau=1e-4), Settings.contrast(gamma=2.0)):
        fbi.settings = settings
        agree(fbi(x, 1)[0], explain(fbi.graph, fbi.graph.tensors, settings, x, 1)[0], settings)


def network_of_one() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1),
        nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES),
    ).eval().double()  # fmt: skip
