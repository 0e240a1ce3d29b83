"""Proof 3: the ``paper`` preset is the paper.

It equals a slow reference, written from the text alone, on random small networks of the VGG
kind; and with all filters and without thresholding it comes close to DeconvNet, as section 3
says.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from photos import CAT, COFFEE
from proofs import reference
from torchfbi import ForwardBackward, Model, Photo, Settings, load


@st.composite
def networks(draw: Any) -> tuple[nn.Sequential, Tensor]:
    """One to three blocks of (convolution, ReLU, perhaps max pooling), then two dense layers."""
    torch.manual_seed(draw(st.integers(0, 2**32)))
    x = torch.rand(2, draw(st.integers(1, 3)), *draw(st.sampled_from([(9, 9), (11, 8), (10, 13)])))
    layers, shape = list[nn.Module](), x.shape[1:]
    for maps in draw(st.lists(st.integers(2, 5), min_size=1, max_size=3)):
        kernel, padding = draw(st.sampled_from([(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)]))
        pool = draw(st.sampled_from([None, (2, 2, 0), (3, 2, 0), (3, 2, 1), (2, 1, 0), (2, 3, 1)]))
        if min(shape[1:]) >= 6:
            stride = draw(st.integers(1, 2))
            layers += [nn.Conv2d(shape[0], maps, kernel, stride, padding), nn.ReLU()]
            shape = nn.Sequential(*layers)(x).shape[1:]
        if pool is not None and min(shape[1:]) >= 3:
            layers.append(nn.MaxPool2d(*pool))
            shape = nn.Sequential(*layers)(x).shape[1:]
    units = draw(st.integers(2, 6))
    layers += [nn.Flatten(), nn.Linear(shape.numel(), units), nn.ReLU(), nn.Linear(units, 4)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.1, 1.5 / layer.weight[0].numel() ** 0.5)
            nn.init.normal_(layer.bias, 0.0, 0.3)
    return nn.Sequential(*layers).double().eval(), x.double()


def as_reference(layer: nn.Module) -> reference.Layer:
    match layer:
        case nn.Conv2d(weight=W, bias=b, stride=(stride, _), padding=(padding, _)):
            return reference.Convolution(W.detach().numpy(), b.detach().numpy(), stride, padding)
        case nn.Linear(weight=W, bias=b):
            return reference.Dense(W.detach().numpy(), b.detach().numpy())
        case nn.MaxPool2d(kernel_size=size, stride=stride, padding=padding):
            return reference.MaxPool(size, stride, padding)
    return {nn.ReLU: reference.ReLU, nn.Flatten: reference.Flatten}[type(layer)]()


@given(
    network=networks(),
    tau=st.sampled_from([0.0, 0.01, 0.2, 1e6]),
    k=st.sampled_from([0.1, 0.5, 1.0]),
    target=st.sampled_from([None, 2]),
)
def test_proof_3_the_paper_preset_is_the_paper(
    network: Any, tau: float, k: float, target: int | None
) -> None:
    net, images = network
    chosen = Settings.paper(tau=tau, k=k)
    values, logits, flow = ForwardBackward(net, images, chosen).flow(images, target)
    layers = [as_reference(layer) for layer in net]
    for i, image in enumerate(images.numpy()):
        slow = reference.explain(layers, image, target, tau, k)
        close(logits[i], slow.logits)
        close(values[i], slow.values)
        for seen, feature in zip(flow, [*slow.features, slow.values], strict=True):
            close(seen.signal[i], feature)
            support = feature != 0
            support = support.any(0) if feature.ndim == 3 else support
            assert np.array_equal(seen.support[i].numpy(), support)
            assert seen.density[i] == pytest.approx(support.mean())


def close(fast: Tensor, slow: reference.Array) -> None:
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-9, atol=1e-9 * np.abs(slow).max())


class Rectified(torch.autograd.Function):
    """Forward the activation, backward the ReLU of the signal (Zeiler and Fergus, 2014)."""

    @staticmethod
    def forward(_: Any, z: Tensor, activation: Tensor) -> Tensor:
        return activation.clone()

    @staticmethod
    def backward(_: Any, s: Tensor) -> tuple[Tensor, None]:
        return s.clamp(min=0), None


def deconvnet(net: nn.Module, images: Tensor) -> Tensor:
    """DeconvNet by autograd: max pooling goes back through its switches, from a one-hot seed."""
    net = copy.deepcopy(net)
    for layer in net.modules():
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.inplace = False
            layer.register_forward_hook(lambda _, z, a: Rectified.apply(z[0], a.detach()))
    leaf = images.clone().requires_grad_()
    (back,) = torch.autograd.grad(net(leaf).amax(1).sum(), leaf)
    return back


def digits() -> tuple[nn.Module, Tensor]:
    """A trained (convolution, ReLU, max pooling) x 3 with two dense layers, and real digits."""
    model = load("digits")
    frames = np.pad(load_digits().images[:50] * 255 / 16, ((0, 0), (2, 2), (2, 2)))
    images = [model.preprocess(Photo.read(frame))[0] for frame in frames.astype(np.uint8)]
    return model.module, torch.stack(images)


def correlations(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, for each sample."""
    rows = zip(a.flatten(1), b.flatten(1), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in rows])


def test_proof_3_with_switches_nothing_selected_is_deconvnet() -> None:
    net, images = digits()
    net, images = copy.deepcopy(net).double(), images.double()
    options = {"tau": None, "k": 1.0, "seed": "one-hot", "subtract_bias": False}
    values, _ = ForwardBackward(net, images, Settings.paper(**options, pooling="winner"))(images)
    close(values, deconvnet(net, images).numpy())


def test_proof_3_all_filters_without_threshold_are_close_to_deconvnet(lite: Model) -> None:
    """Section 3, where no maximum is pooled: the seed and the bias hardly matter.

    Measured on EfficientNet-Lite0: .9996 and .9997.
    """
    images = torch.stack([lite.preprocess(Photo.read(path))[0] for path in (CAT, COFFEE)])
    fbi = ForwardBackward(lite.module, images, Settings.paper(tau=None, k=1.0))
    assert (correlations(fbi(images)[0], deconvnet(lite.module, images)) > 0.99).all()


def test_proof_3_replication_moves_away_from_deconvnet() -> None:
    """The same where maxima are pooled: replication, the seed and the biases all move away.

    Measured on 50 digits: .25 as published, .73 with switches.
    """
    net, images = digits()
    deconvolved, everything = deconvnet(net, images), Settings.paper(tau=None, k=1.0)
    published = ForwardBackward(net, images, everything)(images)[0]
    switched = ForwardBackward(net, images, everything.override(pooling="winner"))(images)[0]
    assert 0.2 < correlations(published, deconvolved).mean() < 0.3
    assert 0.65 < correlations(switched, deconvolved).mean() < 0.8
