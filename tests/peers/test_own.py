"""Peers that are our own walk, against independent implementations; gates and controls by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution, GuidedBackprop
from torch import Tensor, nn

from peers.networks import Activation, Functional
from torchfbi.evaluate import peers
from torchfbi.models.torchvision import import_torchvision


class Rule(torch.autograd.Function):
    """An activation with a backward pass of our own: rule(gradient, derivative)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Activation, rule: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.f, ctx.rule = f, rule
        return f(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.f(leaf).sum(), leaf)
        return ctx.rule(gradient, slope), None, None


def ruled(network: Functional, x: Tensor, target: Tensor, rule: Any) -> Tensor:
    kinds = network.kinds
    network.kinds = [lambda x, f=f: Rule.apply(x, f, rule) for f in kinds]
    leaf = x.clone().requires_grad_()
    network(leaf).gather(1, target[:, None]).sum().backward()
    network.kinds = kinds
    assert leaf.grad is not None
    return leaf.grad


RULES = {
    "guided-backprop": lambda gradient, slope: gradient.relu() * slope,
    "deconvnet": lambda gradient, slope: gradient.relu(),
    "gradient": lambda gradient, slope: gradient * slope,
}
CAPTUM = {"guided-backprop": GuidedBackprop, "deconvnet": Deconvolution}


@pytest.mark.parametrize("name", RULES)
def test_functional_activations(name: str) -> None:
    network, target = Functional(double=True), torch.tensor([1, 4])
    x = torch.randn(2, 3, 16, 16).double()
    values = peers.attribute(name, network, x, target)
    torch.testing.assert_close(values, ruled(network, x, target, RULES[name]))
    if name in CAPTUM:  # hooks on modules find nothing here: the plain gradient
        with pytest.warns(UserWarning, match="hooks"):
            theirs = CAPTUM[name](network).attribute(x.requires_grad_(), target)
        plain = peers.attribute("gradient", network, x, target)
        torch.testing.assert_close(theirs, plain)
        assert (values - plain).abs().max() > 0.1 * plain.abs().max()


@pytest.mark.parametrize("name", CAPTUM)
def test_captum_where_its_hooks_are_right(name: str) -> None:
    network = import_torchvision().models.squeezenet1_1(num_classes=7).eval()
    for part in network.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    x, target = torch.randn(2, 3, 64, 64), torch.tensor([2, 6])
    values = peers.attribute(name, network, x, target)
    with pytest.warns(UserWarning, match="hooks"):
        theirs = CAPTUM[name](network).attribute(x.requires_grad_(), target)
    scale = theirs.abs().max().item()
    torch.testing.assert_close(values, theirs, rtol=1e-3, atol=1e-5 * scale)
    assert values.any()


def slow_rectgrad(network: nn.Sequential, x: Tensor, target: int, q: float) -> Tensor:
    """One image at a time, unit by unit; the layers are convolutions and ReLUs, then a head."""
    tensors = [x]
    for layer in network:
        tensors.append(layer(tensors[-1]))
    signal = torch.zeros_like(tensors[-1])
    signal[0, target] = 1
    for layer, before, after in reversed(list(zip(network, tensors, tensors[1:], strict=False))):
        if isinstance(layer, nn.ReLU):
            product = (after * signal).flatten().tolist()
            best = sorted(product, reverse=True)
            least = best[max(1, -(-round((1 - q) * 1000) * len(best) // 1000)) - 1]
            keep = torch.tensor([p >= least and p > 0 for p in product]).reshape(signal.shape)
            signal = signal * keep
        else:
            leaf = before.detach().requires_grad_()
            (signal,) = torch.autograd.grad(layer(leaf), leaf, signal)
    return signal


def test_rectgrad_against_a_slow_reference() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 4),
    ).double()
    network.eval().requires_grad_(False)
    x, target = torch.randn(3, 3, 12, 12).double(), torch.tensor([0, 3, 3])
    values = peers.attribute("rectgrad", network, x, target)
    for i, one in enumerate(target.tolist()):
        torch.testing.assert_close(
            values[i : i + 1], slow_rectgrad(network, x[i : i + 1], one, 0.98)
        )
    assert 0 < (values != 0).double().mean() < 0.9
    assert (values < 0).any()


# The controls


@pytest.mark.parametrize("shortcut", [False, True])
def test_the_gate_by_hand(shortcut: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 3, stride=2), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.head((x.relu() + x if shortcut else x.relu()).mean((2, 3)))

    network, target = Net().double().eval(), torch.tensor([3, 0])
    x = torch.randn(2, 3, 17, 17).double()
    with torch.no_grad():
        a = network.conv(x)
        a = a.relu() + a if shortcut else a.relu()
    e = (network.head.weight[target][:, :, None, None] / 64 * a).sum(1, keepdim=True).relu()
    expected = F.interpolate(e, size=(17, 17), mode="bilinear", align_corners=False).detach()
    found = peers.attribute("gate", network, x, target)
    assert e.any()
    torch.testing.assert_close(found, expected)
    both = peers.attribute("edge-x-gate", network, x, target)
    torch.testing.assert_close(both, expected * peers.attribute("edge", network, x, target))


NETWORK = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()


def test_edges_by_hand() -> None:
    x = torch.zeros(1, 3, 5, 6)
    x[:, :, :, 3:] = torch.tensor([1.0, 2.0, 6.0])[:, None, None]  # grey: a step of 3
    expected = torch.zeros(1, 1, 5, 6)
    expected[..., 2:4] = 4 * 3
    torch.testing.assert_close(peers.attribute("edge", NETWORK, x, 0), expected)
    across = peers.attribute("edge", NETWORK, x.transpose(2, 3), 0)
    torch.testing.assert_close(across, expected.transpose(2, 3))
    corner = torch.zeros(1, 3, 4, 4)
    corner[:, :, 2:, 2:] = 1
    assert peers.attribute("edge", NETWORK, corner, 0)[0, 0, 1, 1] == pytest.approx(2**0.5)


def test_the_centre_by_hand() -> None:
    centre = peers.attribute("centre", NETWORK, torch.zeros(2, 3, 8, 11), 0)
    assert torch.equal(centre[0], centre[1])
    one = centre[0, 0]
    torch.testing.assert_close(one, one.flip(0, 1))
    distance = torch.tensor((0.5**2 + 2**2) / (2 * 2**2))  # from the middle, sigma = 8 / 4
    torch.testing.assert_close(one[3, 7], torch.exp(-distance))
    assert one.max() == one[3, 5] == one[4, 5]


def test_noise_is_the_images_own() -> None:
    x = torch.randn(2, 3, 32, 32)
    noise = peers.attribute("random", NETWORK, x, 0)
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1:], peers.attribute("random", NETWORK, x[1:], 1))
    assert noise.mean() == pytest.approx(0.5, abs=0.03)
    assert noise.std() == pytest.approx(12**-0.5, abs=0.02)
    assert noise.min() >= 0
    assert noise.max() < 1
