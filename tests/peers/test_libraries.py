"""Peers that look at the network from outside, or through a library: against few-line versions,
completeness, and toys whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift
from torch import Tensor, nn

from peers.networks import Functional
from torchfbi.errors import CaptureError
from torchfbi.evaluate import peers
from torchfbi.evaluate.peers import rise as rise_module
from torchfbi.evaluate.peers.captum import DRAWS, NOISE, lime
from torchfbi.evaluate.peers.rise import masks, rise
from torchfbi.models.torchvision import import_torchvision

import_torchvision()

from pytorch_grad_cam import (  # noqa: E402
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    ScoreCAM,
)
from pytorch_grad_cam.utils.image import scale_cam_image  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

TARGET = torch.tensor([1, 4])


@pytest.fixture
def network() -> Functional:
    return Functional(double=True)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 16, 16).double()


def logit(network: nn.Module, x: Tensor) -> Tensor:
    return network(x)[torch.arange(len(x)), TARGET[: len(x)]]


# Gradients


def test_the_gradient(network: nn.Module, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(logit(network, leaf).sum(), leaf)
    torch.testing.assert_close(peers.attribute("gradient", network, x, TARGET), gradient)
    product = peers.attribute("input-x-gradient", network, x, TARGET)
    torch.testing.assert_close(product, gradient * x)


def test_integrated_gradients_are_complete(network: nn.Module, x: Tensor) -> None:
    values = peers.attribute("integrated-gradients", network, x, TARGET)
    change = logit(network, x) - logit(network, 0 * x)
    torch.testing.assert_close(values.sum((1, 2, 3)), change, rtol=2e-2, atol=1e-3)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).double().eval()
    exact = linear[1].weight[TARGET].reshape(x.shape) * x
    torch.testing.assert_close(peers.attribute("integrated-gradients", linear, x, TARGET), exact)


def test_smoothgrad_squared_is_a_mean_of_squares(network: nn.Module, x: Tensor) -> None:
    values = peers.attribute("smoothgrad-squared", network, x, TARGET, seed=7)
    state = torch.get_rng_state()
    for i in range(2):
        sigma = (NOISE * (x[i].max() - x[i].min())).float()
        torch.manual_seed(7)
        noise = torch.normal(0, sigma.expand(DRAWS, 3, 16, 16))
        noisy = (x[i] + noise).requires_grad_()
        (g,) = torch.autograd.grad(network(noisy)[:, TARGET[i]].sum(), noisy)
        torch.testing.assert_close(values[i], g.square().mean(0), rtol=1e-5, atol=1e-12)
    torch.set_rng_state(state)


# DeepLIFT


class Gated(nn.Module):
    """Overlapping pools, a reused ReLU6, squeeze and excitation, a square."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.relu6, self.squeeze, self.head = (
            nn.ReLU6(inplace=True),
            nn.Linear(6, 6),
            nn.Linear(6, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu6(4 * self.conv(x)), 3, 2, 1)
        x = F.max_pool2d(self.relu6(self.again(x)) / 2, 3, 1)
        x = x * self.squeeze(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return self.head(F.gelu(x * x - x).mean((2, 3)))


@pytest.mark.parametrize("kind", [Functional, Gated])
def test_deeplift_is_complete(kind: type[nn.Module], x: Tensor) -> None:
    network = kind().double().eval().requires_grad_(False)
    values = peers.attribute("deeplift", network, x, TARGET)
    change = logit(network, x) - logit(network, 0 * x)
    torch.testing.assert_close(values.sum((1, 2, 3)), change)
    gradient = peers.attribute("input-x-gradient", network, x, TARGET)
    assert (gradient.sum((1, 2, 3)) - change).abs().min() > 1e-4


def test_deeplift_is_captums_where_that_is_right(x: Tensor) -> None:
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Tanh(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(864, 6), nn.ELU(), nn.Linear(6, 5)).double().eval()
    with pytest.warns(UserWarning, match="hooks"):
        theirs = DeepLift(network).attribute(x.clone().requires_grad_(), target=TARGET)
    torch.testing.assert_close(peers.attribute("deeplift", network, x, TARGET), theirs.detach())


def test_deeplift_through_a_maximum_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 2))
    for parameter in network.double().eval().parameters():
        nn.init.ones_(parameter)
    up = torch.tensor([[[[1.0, -5.0], [3.0, 2.0]]]]).double()
    assert torch.equal(
        peers.attribute("deeplift", network, up, 0),
        torch.tensor([[[[0.0, 0.0], [3.0, 0.0]]]]).double(),
    )
    # The maximum falls from 0 to -1: laid to the first of the baseline's maxima, where x fell by 4.
    down = torch.tensor([[[[-4.0, -5.0], [-1.0, -2.0]]]]).double()
    assert torch.equal(
        peers.attribute("deeplift", network, down, 0),
        torch.tensor([[[[-1.0, 0.0], [0.0, 0.0]]]]).double(),
    )


def test_deeplift_says_what_it_cannot_do(x: Tensor) -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5)]
    network = nn.Sequential(*layers).double().eval()
    with pytest.raises(CaptureError, match=r"aten.group_norm.default at 1: choose another"):
        peers.attribute("deeplift", network, x, 0)


# Class activation maps


def test_class_activation_maps_in_a_few_lines(network: Functional, x: Tensor) -> None:
    """At a functional ReLU, which the library itself cannot be pointed at."""
    seen: list[Tensor] = []
    plain = network.kinds[0]
    network.kinds[0] = lambda x: seen.append(x.relu()) or seen[-1]
    (g,) = torch.autograd.grad(logit(network, x.clone().requires_grad_()).sum(), seen)
    network.kinds[0] = plain
    a = seen[0].detach()
    alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + 1e-6)  # equation 19 there
    for name, weights in {
        "grad-cam": g.mean((2, 3), keepdim=True),
        "layer-cam": g.relu(),
        "grad-cam++": (alpha * g.relu()).sum((2, 3), keepdim=True),
    }.items():
        coarse = (weights * a).sum(1, keepdim=True).relu()
        expected = F.interpolate(coarse, size=(16, 16), mode="bilinear", align_corners=False)
        values = peers.attribute(name, network, x, TARGET)
        assert values.any()
        torch.testing.assert_close(values, expected, msg=name)
    guided = peers.attribute("guided-backprop", network, x, TARGET)
    product = guided * peers.attribute("grad-cam", network, x, TARGET)
    torch.testing.assert_close(peers.attribute("guided-grad-cam", network, x, TARGET), product)


@pytest.fixture
def modules() -> nn.Sequential:
    layers = [nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(5, 6)).eval()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("grad-cam", GradCAM),
        ("grad-cam++", GradCAMPlusPlus),
        ("layer-cam", LayerCAM),
        ("score-cam", ScoreCAM),
    ],
)
def test_the_librarys_own_call_scales_the_same_map(
    name: str, kind: Any, modules: nn.Sequential, capsys: pytest.CaptureFixture[str]
) -> None:
    x, targets = torch.randn(2, 3, 17, 21), [ClassifierOutputTarget(c) for c in TARGET.tolist()]
    values = peers.attribute(name, modules, x, TARGET)
    assert capsys.readouterr() == ("", "")
    with kind(model=modules, target_layers=[modules[1]]) as cam:
        theirs = cam(input_tensor=x, targets=targets)
    assert np.allclose(scale_cam_image(values[:, 0].numpy()), theirs, atol=1e-4)
    assert theirs.std() > 0.1


def test_finer_cam_is_the_librarys(modules: nn.Sequential) -> None:
    x = torch.randn(1, 3, 17, 21)
    target = int(modules(x).argmax())  # the library knows the nearest of the top class alone
    values = peers.attribute("finer-cam", modules, x, target)
    theirs = FinerCAM(modules, [modules[1]])(x)
    assert np.allclose(scale_cam_image(values[:, 0].numpy()), theirs, atol=1e-4)
    assert theirs.std() > 0.1
    plain = peers.attribute("grad-cam", modules, x, target)
    assert (scale_cam_image(plain[:, 0].numpy()) - theirs).std() > 0.01


# From outside


def probability(network: nn.Module, x: Tensor) -> Tensor:
    return network(x).softmax(1)


def test_occlusion_in_slow_motion(network: nn.Module, x: Tensor) -> None:
    """16 pixels: windows of 2, moved by 1."""
    values = peers.attribute("occlusion", network, x, TARGET)
    total, count = torch.zeros_like(x[:, 0]), torch.zeros(16, 16)
    whole = probability(network, x)
    for row in range(15):
        for column in range(15):
            window = (slice(row, row + 2), slice(column, column + 2))
            altered = x.clone()
            altered[:, :, window[0], window[1]] = 0
            lost = (whole - probability(network, altered))[torch.arange(2), TARGET]
            total[:, window[0], window[1]] += lost[:, None, None]
            count[window] += 1
    torch.testing.assert_close(values[:, 0], total / count, rtol=1e-4, atol=1e-7)


def test_lime_is_a_weighted_ridge_regression() -> None:
    network = Functional()
    x, samples = torch.randn(2, 3, 16, 16), 200
    values = lime(network, x, TARGET, 3, samples=samples)
    generator = torch.Generator().manual_seed(3)
    draws = [torch.randint(2, (1, 64), generator=generator) for _ in range(samples)]
    z = torch.cat(draws).double().numpy()
    grids = torch.cat(draws).reshape(-1, 1, 8, 8).float()
    shown = grids.repeat_interleave(2, 2).repeat_interleave(2, 3)
    distance = 1 - np.sqrt(z.mean(1))
    weight = np.sqrt(np.exp(-(distance**2) / 0.25**2))
    for i, c in enumerate(TARGET.tolist()):
        y = probability(network, x[i : i + 1] * shown)[:, c].double().numpy()
        design = np.concatenate([z, np.ones((samples, 1))], 1)
        penalty = np.diag([1.0] * 64 + [0.0])
        normal = design.T * weight
        solved = np.linalg.solve(normal @ design + penalty, normal @ y)[:64].reshape(8, 8)
        expected = np.kron(solved, np.ones((2, 2)))
        assert np.allclose(values[i, 0].numpy(), expected, rtol=1e-3, atol=1e-7)
    assert values.abs().max() > 1e-4


def test_rises_masks() -> None:
    found = masks(2000, (14, 21), 0)
    assert found.shape == (2000, 1, 14, 21)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.mean() == pytest.approx(0.5, abs=0.02)
    # Bilinear weights at a random place: the mean square is p^2 + p (1 - p) (2/3)^2.
    inside = found[:, :, 4:-4, 5:-5].double()
    assert inside.square().mean() == pytest.approx(0.25 + 0.25 * 4 / 9, abs=0.02)
    assert torch.equal(found, masks(2000, (14, 21), 0))
    assert not torch.equal(found, masks(2000, (14, 21), 1))


class OnePixel(nn.Module):
    """Two classes; the first one's probability is very nearly 1/2 + x[0, 6, 8] / 4000."""

    def forward(self, x: Tensor) -> Tensor:
        z = x[:, 0, 6, 8] / 1000
        return torch.stack([z, 0 * z], 1)


def test_rise_finds_the_one_pixel_that_counts() -> None:
    network, x = OnePixel().eval(), torch.rand(2, 1, 16, 16).double() + 1
    count, target = 400, torch.tensor([0, 1])
    values = rise(network, x, target, 5, count=count)[:, 0]
    empty = rise(network, 0 * x, target, 5, count=count)[:, 0]
    m = masks(count, (16, 16), 5)[:, 0].double()
    torch.testing.assert_close(empty[0], m.mean(0))  # probability 1/2 over an expectation of 1/2
    # The rest is the pixel's value times E[M(pixel) M] / E[M].
    known = 2 * (m[:, 6, 8, None, None] * m).mean(0) / 4000
    for i, sign in enumerate((1, -1)):
        torch.testing.assert_close(
            values[i] - empty[i], sign * x[i, 0, 6, 8] * known, rtol=1e-3, atol=1e-9
        )
    assert known.argmax() == 6 * 16 + 8
    assert rise_module.COUNT == 500
