"""Relevance propagation and excitation backprop: against the rules written out layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peers.networks import Functional
from torchfbi.errors import CaptureError
from torchfbi.evaluate import peers

TARGET = torch.tensor([1, 4])


@pytest.fixture
def network() -> nn.Sequential:
    layers = [
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(45, 5)),
    ]
    made = nn.Sequential(*layers).double().eval().requires_grad_(False)
    for norm in (made[1], made[4]):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return made


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 14, 14).double()


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = conv.weight * scale[:, None, None, None]
    return weight, (conv.bias - norm.running_mean) * scale + norm.bias


Back = Callable[[Tensor], Tensor]


def back_through(function: Callable[[Tensor], Tensor], a: Tensor, s: Tensor) -> Tensor:
    """The transposed function, at a, of s."""
    leaf = a.detach().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf, s)[0]


def forward(network: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the second convolution, the pooling and the dense layer are given."""
    a1 = network[:3](x)
    a2 = network[3:6](a1)
    return a1, a2, network[6:8](a2)


def to_second(network: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Relevance at the second convolution's output by the epsilon rule, its input and output."""
    a1, a2, a3 = forward(network, x)
    one_hot = F.one_hot(TARGET, 5).double()
    z = network[8](a3)
    r3 = a3 * ((one_hot / (z + 1e-6 * z.sign())) @ network[8].weight)
    return a1, a2, back_through(network[6:8], a2, r3)


def z_plus(w: Tensor, b: Tensor, a: Tensor, r: Tensor, **options: int) -> Tensor:
    """a >= 0: R_j = a_j sum_k w+_kj R_k / (sum_i w+_ki a_i + b+_k)."""
    z = F.conv2d(a, w.clamp(min=0), b.clamp(min=0), **options) + 1e-6
    return a * back_through(lambda a: F.conv2d(a, w.clamp(min=0), **options), a, r / z)


def test_epsilon_plus_flat(network: nn.Sequential, x: Tensor) -> None:
    a1, _, r2 = to_second(network, x)
    r1 = z_plus(*folded(network[3], network[4]), a1, r2, stride=2)
    ones = torch.ones_like(network[0].weight)
    even = torch.ones_like(x)
    z = F.conv2d(even, ones, padding=1)
    expected = back_through(lambda a: F.conv2d(a, ones, padding=1), even, r1 / z)
    found = peers.attribute("zennit-epsilon-plus-flat", network, x, TARGET)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)
    assert found.std() > 0


def test_epsilon_gamma_box(network: nn.Sequential, x: Tensor) -> None:
    a1, _, r2 = to_second(network, x)
    w, b = folded(network[3], network[4])
    w, b = w + 0.25 * w.clamp(min=0), b + 0.25 * b.clamp(min=0)
    z = F.conv2d(a1, w, b, stride=2)
    s = torch.where(z == 0, 0.0, r2 / (z + 1e-6 * z.sign()))
    r1 = a1 * back_through(lambda a: F.conv2d(a, w, stride=2), a1, s)
    w, b = folded(network[0], network[1])
    low, high = (x.amin((1, 2, 3), True).expand_as(x), x.amax((1, 2, 3), True).expand_as(x))
    parts = (x, w, 1.0), (low, w.clamp(min=0), -1.0), (high, w.clamp(max=0), -1.0)
    biases = b, b.clamp(min=0), b.clamp(max=0)
    z = sum(
        sign * F.conv2d(a, w, b, padding=1) for (a, w, sign), b in zip(parts, biases, strict=True)
    )
    s = r1 / (z + 1e-6 * z.sign())
    expected = sum(
        sign * a * back_through(lambda a, w=w: F.conv2d(a, w, padding=1), a, s)
        for a, w, sign in parts
    )
    found = peers.attribute("zennit-epsilon-gamma-box", network, x, TARGET)
    similar = F.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert (similar > 0.999).all()


def test_captums_epsilon_rule_is_the_gradient_times_the_input_of_rectifiers(x: Tensor) -> None:
    """Without biases and with a small epsilon (Ancona et al. 2018, proposition 1)."""
    layers = [nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(576, 5)]
    network = nn.Sequential(*layers).double().eval().requires_grad_(False)
    nn.init.zeros_(network[3].bias)
    expected = peers.attribute("input-x-gradient", network, x, TARGET)
    found = peers.attribute("captum-lrp", network, x, TARGET)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_contrastive_excitation_backprop(network: nn.Sequential, x: Tensor) -> None:
    network = nn.Sequential(*network[:6], nn.MaxPool2d(2), nn.Flatten(), network[8]).eval()
    a1, a2, a3 = forward(network, x)
    dense = network[8].weight
    difference = 0
    for sign in (1, -1):
        w = (sign * dense[TARGET]).clamp(min=0)
        p = a3 * w / (a3 * w).sum(1, keepdim=True)
        difference = difference + sign * back_through(network[6:8], a2, p)
    w, _ = folded(network[3], network[4])
    plus = w.clamp(min=0)
    z = F.conv2d(a1, plus, stride=2)
    s = torch.where(z > 0, difference / z, 0.0)
    fine = a1 * back_through(lambda a: F.conv2d(a, plus, stride=2), a1, s)
    # The feature that is at most four times coarser than the image is the second one.
    coarse = difference.relu().sum(1, keepdim=True)
    expected = F.interpolate(coarse, size=(14, 14), mode="bilinear", align_corners=False)
    found = peers.attribute("contrastive-excitation-backprop", network, x, TARGET)
    torch.testing.assert_close(found, expected)
    # On an image twice as large the second feature is too coarse by comparison: the first is read.
    assert fine.abs().sum() > 0


def test_it_is_read_at_a_fine_feature_below_the_top(x: Tensor) -> None:
    layers = [
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3)),
        *(nn.Conv2d(4, 5, 2, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(20, 5)),
    ]
    network = nn.Sequential(*layers).double().eval().requires_grad_(False)
    a1, a2 = network[:2](x), network[:5](x)
    difference = 0
    for sign in (1, -1):
        w = (sign * network[6].weight[TARGET]).clamp(min=0)
        p = a2.flatten(1) * w
        difference = difference + sign * (p / p.sum(1, keepdim=True)).view_as(a2)
    plus = network[3].weight.clamp(min=0)
    pooled = network[2](a1)
    z = F.conv2d(pooled, plus, stride=2)
    s = torch.where(z > 0, difference / z, 0.0)
    p = pooled * back_through(lambda a: F.conv2d(a, plus, stride=2), pooled, s)
    fine = back_through(network[2], a1, p).relu().sum(1, keepdim=True)
    expected = F.interpolate(fine, size=(14, 14), mode="bilinear", align_corners=False)
    found = peers.attribute("contrastive-excitation-backprop", network, x, TARGET)
    torch.testing.assert_close(found, expected)
    assert found.any()


def test_layers_that_are_no_modules_are_refused(x: Tensor) -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.weight = nn.Conv2d(3, 4, 3), nn.Parameter(torch.randn(5, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.conv(x).relu().mean((2, 3)), self.weight)

    network = Bare().double().eval()
    softmax = nn.Sequential(nn.Flatten(), nn.Linear(588, 5), nn.Softmax(1)).double().eval()
    for name in ("zennit-epsilon-plus-flat", "zennit-epsilon-gamma-box", "captum-lrp"):
        with pytest.raises(CaptureError, match="1 of the 2 convolutions and dense layers"):
            peers.attribute(name, network, x, 0)
        with pytest.raises(CaptureError, match="ends in a softmax"):
            peers.attribute(name, softmax, x, 0)


def test_what_has_no_rule_is_said(x: Tensor) -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.PixelUnshuffle(2), nn.Flatten(), nn.Linear(576, 5)]
    with pytest.raises(CaptureError, match=r"Captum's LRP: Module of type .*PixelUnshuffle"):
        peers.attribute("captum-lrp", nn.Sequential(*layers).double().eval(), x, 0)

    class Padded(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3)
            self.padding_before = nn.ZeroPad2d(1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.padding_before(x))

    padded = nn.Sequential(Padded(), nn.ReLU6(), nn.Flatten(), nn.Linear(784, 5)).double().eval()
    with pytest.raises(CaptureError, match="passes over layers that hold other modules, as 0 does"):
        peers.attribute("captum-lrp", padded, x, 0)
    assert peers.attribute("zennit-epsilon-plus-flat", padded, x, 0).any()

    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.mean((2, 3), keepdim=True)

    gate = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Gate(), nn.Flatten(), nn.Linear(576, 5))
    with pytest.raises(CaptureError, match=r"no winning probability for aten\.mul"):
        peers.attribute("contrastive-excitation-backprop", gate.double().eval(), x, 0)


def test_the_users_network_is_not_touched(network: nn.Sequential, x: Tensor) -> None:
    before = copy.deepcopy(network.state_dict())
    for name in ("zennit-epsilon-plus-flat", "captum-lrp"):
        peers.attribute(name, network, x, TARGET)
        for part in network.modules():
            assert not part._forward_hooks
            assert not part._forward_pre_hooks
            assert not part._backward_hooks
        for key, value in network.state_dict().items():
            assert torch.equal(before[key], value)


def test_functional_networks_are_explained_by_excitation(x: Tensor) -> None:
    assert peers.attribute("contrastive-excitation-backprop", Functional(True), x, TARGET).any()
