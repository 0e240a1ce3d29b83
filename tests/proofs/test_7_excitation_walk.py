"""The excitation walk, against the formulas in its docstring written out entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.engine.sides import positive_inputs, rectified_outputs
from torchfbi.method.adjoints.excitation import excitation
from torchfbi.method.walk import explain

DENSE = F.linear
DENSE_ADJOINT: Callable[[Tensor, Tensor], Tensor] = lambda s, w: s @ w  # noqa: E731


def reference(
    s: np.ndarray, a: np.ndarray, W: np.ndarray, b: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """The signal at the input, and what survives of that at the output: loops over all entries."""
    survived, back = np.zeros(len(W)), np.zeros(len(a))
    for k in range(len(W)):
        z = b[k] + sum(W[k, j] * a[j] for j in range(len(a)))
        sign = np.sign(z)
        alike = sum(W[k, j] * a[j] for j in range(len(a)) if W[k, j] * a[j] * sign > 0)
        alike += b[k] if b[k] * sign > 0 else 0.0
        survived[k] = s[k] * z / (z + gamma * alike) if z else 0.0
        for j in range(len(a)):
            more = 1 + gamma * (W[k, j] * a[j] * sign > 0)
            back[j] += survived[k] * W[k, j] * more
    return back, survived


def some(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.normal(size=shape))


@given(st.integers(0, 10**6), st.floats(0.01, 100.0), st.booleans())
def test_a_dense_layer_equals_the_formulas(seed: int, gamma: float, positive: bool) -> None:
    rng = np.random.default_rng(seed)
    a, W, b, s = some(rng, 5), some(rng, 4, 5), some(rng, 4), some(rng, 4)
    a = a.abs() if positive else a
    z = DENSE(a[None], W, b)
    found = excitation(s[None], z, a[None], W, b, gamma, DENSE, DENSE_ADJOINT)[0]
    expected, survived = reference(*(t.numpy() for t in (s, a, W, b)), gamma)
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)
    # 0 <= s' / s <= 1 / (1 + gamma): nothing can explode.
    share = survived / s.numpy()
    assert (share >= 0).all()
    assert (share <= (1 + 1e-12) / (1 + gamma)).all()
    # What is handed back sums to what came, but for the bias.
    z, b = z[0].numpy(), b.numpy()
    bias = survived * (b + gamma * np.where(b * z > 0, b, 0))
    assert np.isclose((expected * a.numpy()).sum(), (s.numpy() * z).sum() - bias.sum())


LAYERS = {
    "1-d": lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1),
    "2-d": lambda: nn.Conv2d(2, 4, 3, padding=1),
    "3-d": lambda: nn.Conv3d(1, 2, 2),
    "grouped": lambda: nn.Conv2d(4, 4, 3, groups=2, bias=False),
    "depthwise, strided": lambda: nn.Conv2d(3, 3, 3, stride=2, padding=1, groups=3),
    "dilated": lambda: nn.Conv2d(2, 2, 2, dilation=2),
    "transposed": lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1),
    "dense": lambda: nn.Linear(4, 3),
    "dense at each place": lambda: nn.Linear(4, 3),
}
INPUTS = {
    "1-d": (1, 2, 9),
    "2-d": (1, 2, 5, 4),
    "3-d": (1, 1, 3, 4, 3),
    "grouped": (1, 4, 5, 5),
    "depthwise, strided": (1, 3, 6, 5),
    "dilated": (1, 2, 5, 5),
    "transposed": (1, 3, 3, 4),
    "dense": (1, 4),
    "dense at each place": (1, 2, 3, 4),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("positive", [True, False])
def test_every_affine_layer_is_a_dense_one(kind: str, positive: bool) -> None:
    """A layer's matrix is read off its answers to unit vectors; the walk through the layer, between
    two others so that it is a hidden one, is that through the dense layer of this matrix."""
    torch.manual_seed(1)
    layer, shape = LAYERS[kind]().double().requires_grad_(False), INPUTS[kind]
    x = torch.randn(shape, dtype=torch.float64)
    size = x.numel()
    x = x.abs() if positive else x
    b = layer(torch.zeros(shape, dtype=torch.float64)).flatten()
    units = torch.eye(size, dtype=torch.float64)
    W = torch.stack([layer(u.reshape(shape)).flatten() - b for u in units], 1)
    s = torch.randn_like(layer(x))

    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer = nn.Linear(1, 1, bias=False).double(), layer
            self.last = nn.Linear(len(b), 1, bias=False).double()
            with torch.no_grad():
                self.first.weight.fill_(1.0)
                self.last.weight.copy_(s.flatten()[None])
            self.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.layer(self.first(x[..., None])[..., 0]).flatten(1))

    values, _ = ForwardBackward(Between().eval(), x, Settings(gamma=0.7))(x, 0)
    expected, _ = reference(*(t.flatten().numpy() for t in (s, x)), W.numpy(), b.numpy(), 0.7)
    assert np.allclose(values.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_a_toy_by_hand() -> None:
    """One unit, z = 2 * 3 - 1 * 4 + 1 = 3, excited by z+ = 6 + 1 = 7; gamma = 1. Of a signal of 10
    survives 10 * 3 / (3 + 7) = 3; the exciting input gets 3 * 2 * 2 = 12, the other 3 * -1 = -3."""
    a, W = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, -1.0]])
    z, b = torch.tensor([[3.0]]), torch.tensor([1.0])
    back = excitation(torch.tensor([[10.0]]), z, a, W, b, 1.0, DENSE, DENSE_ADJOINT)
    assert torch.equal(back, torch.tensor([[12.0, -3.0]]))


def test_a_silent_unit_hands_nothing_back() -> None:
    zero = torch.zeros(1, 2)
    back = excitation(torch.ones(1, 1), zero[:, :1], zero, zero, None, 0.5, DENSE, DENSE_ADJOINT)
    assert torch.equal(back, zero)


class Small(nn.Module):
    """Four convolutions without bias, max pooling, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(3, 6), (6, 8), (8, 8), (8, 6)]
        self.convolutions = nn.ModuleList(nn.Conv2d(*s, 3, padding=1, bias=False) for s in sizes)
        self.dense, self.classes = nn.Linear(6, 10, bias=False), nn.Linear(10, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for number, convolution in enumerate(self.convolutions):
            x = F.relu(convolution(x))
            x = F.max_pool2d(x, 2) if number == 1 else x
        return self.classes(F.relu(self.dense(x.mean((2, 3)))))


def small() -> nn.Module:
    torch.manual_seed(3)
    return Small().double().eval().requires_grad_(False)


def test_without_gamma_it_is_the_plain_adjoint_bit_for_bit() -> None:
    network, x = small(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    plain = Settings.contrast(gamma=0.0, values="signal")
    values, _ = ForwardBackward(network, x, plain)(x, 1)
    before = Settings(seed="contrast", gates="held", pooling="proportional")
    assert torch.equal(values, ForwardBackward(network, x, before)(x, 1)[0])
    # And it comes out of the walk's formulas as gamma falls.
    near, _ = ForwardBackward(network, x, plain.override(gamma=1e-9))(x, 1)
    assert torch.allclose(near, values, rtol=0, atol=1e-5 * float(values.abs().max()))


def excitation_backprop(network: Any, x: Tensor, seed: Tensor) -> Tensor:
    """Zhang et al. 2016, equation 10, by autograd: each layer hands its probabilities, here signed,
    to its inputs in proportion to a_j w+_kj. The classifier hands w_k a_j on, as the seed contrasts
    its units. In max pooling the winner takes all. Returns the relevance of the first feature."""
    activations = [F.relu(network.convolutions[0](x))]
    layers: list[Any] = [
        lambda a: F.conv2d(a, network.convolutions[1].weight.clamp(min=0), padding=1),
        None,
        *(
            lambda a, c=c: F.conv2d(a, c.weight.clamp(min=0), padding=1)
            for c in network.convolutions[2:]
        ),
        lambda a: a.mean((2, 3)) @ network.dense.weight.clamp(min=0).T,
    ]
    forward: list[Any] = [
        lambda a: F.relu(network.convolutions[1](a)),
        lambda a: F.max_pool2d(a, 2),
        *(lambda a, c=c: F.relu(c(a)) for c in network.convolutions[2:]),
        lambda a: F.relu(network.dense(a.mean((2, 3)))),
    ]
    for step in forward:
        activations.append(step(activations[-1]))
    relevance = (seed @ network.classes.weight) * activations[-1]
    for layer, a in zip(reversed(layers), reversed(activations[:-1]), strict=True):
        a = a.clone().requires_grad_()
        z = F.max_pool2d(a, 2) if layer is None else layer(a)
        share = torch.where(z > 0, relevance / z.clamp(min=1e-300), 0.0).detach()
        (gradient,) = torch.autograd.grad((z * share).sum(), a)
        relevance = (a * gradient).detach()
    return relevance


def test_its_limit_is_excitation_backprop() -> None:
    network, x = small(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    seed = torch.tensor([[1.0, -0.5, -0.5, 0.0]], dtype=torch.float64).expand(2, -1)
    limit = Settings(gamma=1e12, gates="held", pooling="winner")
    fbi = ForwardBackward(network, x, limit)
    _, _, flow = fbi.flow(x, lambda _: seed)
    first = flow[-2]
    expected = excitation_backprop(network, x, seed)
    assert expected.abs().max() > 0
    assert torch.allclose(first.signal * first.activation, expected, rtol=1e-6, atol=1e-12)


def test_only_hidden_layers_are_walked_by_excitation() -> None:
    network, x = small(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    graph = ForwardBackward(network, x).graph
    affine = [n for n in graph.nodes if "convolution" in str(n.target) or "linear" in str(n.target)]
    assert [node in graph.hidden for node in affine] == [False, True, True, True, True, False]


@pytest.mark.parametrize("gates", ["held", "derivative", "guided", "rectify"])
def test_layers_of_one_side_take_a_short_way_to_the_same(gates: Any) -> None:
    network, x = small(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    settings = Settings(gamma=0.25, gates=gates)
    fbi = ForwardBackward(network, x, settings)
    assert len(positive_inputs(fbi.graph)) == 4
    assert len(rectified_outputs(fbi.graph, settings)) == (0 if gates == "rectify" else 4)
    values, _ = fbi(x, 1)
    expected, _ = explain(fbi.graph, fbi.graph.tensors, settings, x, 1)  # which takes none
    assert expected.any()
    assert torch.allclose(values, expected, rtol=1e-9, atol=1e-15)
