"""Numbers at the edge of their range: the answer is finite, or a clear error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.errors import NonFiniteError

PRESETS = [
    Settings.paper(tau=0.0),
    Settings.contrast(),
    Settings.plain(),
    Settings.contrast(tau=1e-3, k=0.5, values="signal"),
    Settings(gates="guided", gamma=10.0),
]
every_preset = pytest.mark.parametrize("settings", PRESETS, ids=lambda s: f"{s.preset} {s.tau}")


def network(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), activation(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), activation(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


def image(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def walk(net: nn.Module, x: Tensor, settings: Settings) -> Tensor:
    values, logits = ForwardBackward(net, x, settings)(x, 1)
    assert torch.isfinite(values).all()
    assert torch.isfinite(logits).all()
    return values


@every_preset
def test_logits_of_1e30(settings: Settings) -> None:
    net = network()
    with torch.no_grad():
        net[-1].weight.mul_(1e30)
    if settings.seed == "paper":  # it puts the logits into the seed, and the weights come again
        with pytest.raises(NonFiniteError, match="wider dtype"):
            walk(net, image(), settings)
        walk(net.double(), image().double(), settings)
        return
    values = walk(net, image(), settings)
    assert values.abs().max() > 1e20
    if settings.seed == "one-hot":
        usual = walk(network(), image(), settings)
        torch.testing.assert_close(values / 1e30, usual)


def test_images_of_one_colour_and_denormal_ones() -> None:
    net = network()
    for settings in PRESETS:
        for x in (*(torch.full((1, 3, 12, 12), level) for level in (0.0, 0.5, -3.0)), image(1e-41)):
            walk(net, x, settings)


@pytest.mark.parametrize("bias", [0.0, 1.0, -1.0])
def test_feature_maps_that_are_constant(bias: float) -> None:
    net = network()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(bias)
    for settings in PRESETS:  # the pixels have no influence, and none is blamed
        assert not walk(net, image(), settings).any()


@pytest.mark.parametrize(
    "activation", [nn.Sigmoid, nn.Tanh, nn.ReLU6, nn.Hardswish, nn.ELU, nn.GELU, nn.Softplus,
                   nn.Mish, nn.SELU, nn.Hardsigmoid, nn.SiLU, nn.LeakyReLU],
)  # fmt: skip
def test_activations_that_are_saturated(activation: Callable[[], nn.Module]) -> None:
    net = network(activation)  # one for all, since it is captured once
    for settings in PRESETS:
        for scale in (0.0, 1e-30, 1e4):
            walk(net, image(scale), settings)


def test_signals_that_are_denormal() -> None:
    net = network()
    with torch.no_grad():
        net[-1].weight.mul_(1e-41)
    for settings in PRESETS:
        walk(net, image(), settings)


@every_preset
def test_a_signal_that_overflows_is_an_error(settings: Settings) -> None:
    """The logits are small, since the second convolution sees only zeros; not so its adjoint."""
    net = network()
    with torch.no_grad():
        net[0].weight.mul_(1e-25)
        net[0].bias.mul_(1e-25)
        net[3].weight.mul_(1e25)
        net[-1].weight.mul_(1e25)
    with pytest.raises(NonFiniteError, match=r"wider dtype|output is NaN"):
        walk(net, image(), settings)
    walk(net.double(), image().double(), settings)


@every_preset
def test_half_precision_overflows_with_an_error(settings: Settings) -> None:
    net = network().half()
    x = image().half()
    walk(net, x, settings)
    with torch.no_grad():
        net[-1].weight.mul_(3e4)
    with pytest.raises(NonFiniteError, match="wider dtype"):
        walk(net, 3e3 * x, settings)


def test_no_damage_is_passed_on() -> None:
    x = image()
    for damage in (float("nan"), float("inf")):
        net = network()
        with torch.no_grad():
            net[3].weight[0, 0, 0, 0] = damage
        with pytest.raises(NonFiniteError, match="weights may be damaged"):
            walk(net, x, Settings.contrast())
        x_damaged = x.clone()
        x_damaged[1, 0, 0, 0] = damage
        with pytest.raises(NonFiniteError, match="the input contains"):
            walk(network(), x_damaged, Settings.contrast())
