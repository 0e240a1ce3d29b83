"""Packed weights: the same convolution, and never those of before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.engine import packed as packing

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


def network() -> nn.Module:
    """Windows, matrices, strides, dilation, groups and padding."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, 2, 2), nn.ReLU(), nn.Conv2d(32, 48, 3, 1, 2, 2), nn.ReLU(),
        nn.Conv2d(48, 48, 3, 1, 1, groups=48, bias=False), nn.ReLU(), nn.Conv2d(48, 8, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip


def convolved(fbi: ForwardBackward, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each convolution with packed weights, and as PyTorch's own."""
    found = []
    values = fbi._run(x)
    for node in fbi.graph.nodes:
        args, kwargs = fbi._engine._arguments(node, values)
        values[node] = node.target(*args, **kwargs)
        convolution = node.target is torch.ops.aten.convolution.default
        packed = packing.convolution(*args) if convolution else None
        if packed is not None:
            found.append((packed, values[node]))
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_a_packed_convolution_is_the_convolution(batch: int) -> None:
    x = torch.randn(batch, 3, 24, 20)
    pairs = convolved(ForwardBackward(network(), x, Settings.plain()), x)
    assert len(pairs) == 4
    for packed, expected in pairs:
        torch.testing.assert_close(packed, expected)


def test_what_is_not_a_number_stays_so() -> None:
    """An activation function that oneDNN applies itself would turn it into zero."""
    net, x = network(), torch.randn(1, 3, 24, 20)
    with torch.no_grad():
        net[2].weight[0, 0, 0, 0] = torch.nan
    _, (packed, expected), *_ = convolved(ForwardBackward(net, x, Settings.plain()), x)
    assert expected.isnan().any()
    damaged = [value.isnan().any(3).any(2) for value in (packed, expected)]
    assert torch.equal(*damaged)  # the padding makes 0 * NaN at the border, or not


def test_it_is_left_alone_where_it_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    large, double = torch.randn(1, 3, 200, 200), torch.randn(1, 3, 24, 20, dtype=torch.float64)
    assert not convolved(ForwardBackward(network(), large, Settings.plain()), large)
    net = network().double()
    assert not convolved(ForwardBackward(net, double, Settings.plain()), double)
    x = double.float()
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert not convolved(ForwardBackward(network(), x, Settings.plain()), x)


def test_an_explainer_that_moved_packs_its_new_weights() -> None:
    x = torch.randn(1, 3, 24, 20)
    fbi = ForwardBackward(network(), x, Settings.plain())
    before, other = fbi(x)[1], copy.deepcopy(fbi)
    assert torch.equal(other(x)[1], before)
    for name, weight in other.named_buffers():
        setattr(other, name, weight * 2)
    assert not torch.allclose(other(x)[1], before)
    assert torch.equal(other(x)[1], copy.deepcopy(other)(x)[1])  # which has packed nothing yet
    torch.testing.assert_close(fbi(x)[1], before)
    torch.testing.assert_close(fbi.double()(x.double())[1].float(), before)
