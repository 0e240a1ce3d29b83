"""Evidence: at a feature, at the pixels, in their channels, and its support, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.method import evidence
from torchfbi.method.evidence import of_feature, of_pixels, placed, support
from torchfbi.method.seeds import seed


def tensor(*rows: Any) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_at_a_feature_signal_times_activation_is_summed_over_the_maps() -> None:
    s, a = tensor([[1, -2], [3, 4]]), tensor([[5, 1], [-1, 0.5]])
    assert of_feature(s, a).tolist() == [[5 - 3, -2 + 2]]
    assert of_feature(s, a, channel=2).tolist() == [[5 - 2, -3 + 2]]
    half = torch.full((1, 2, 3), 300.0, dtype=torch.float16)
    assert of_feature(half, half).tolist() == [[180_000.0] * 3]  # beyond float16


@pytest.mark.parametrize(
    ("coarse", "sizes"),
    [((5,), (40,)), ((4, 6), (16, 24)), ((7, 7), (33, 20)), ((2, 3, 2), (8, 9, 10))],
    ids=str,
)
def test_constant_evidence_is_spread_evenly(coarse: Any, sizes: Any) -> None:
    """The share of a position that a pixel is, once for each: 1 at all pixels, of either sign."""
    for sign in (1.0, -1.0):
        found = of_pixels([torch.full((2, *coarse), 3 * sign)], sizes)
        torch.testing.assert_close(found, torch.full((2, *sizes), sign))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_each_resolution_keeps_its_sum(dims: int) -> None:
    """Evidence of 1 in the middle of 8 positions and of -6 in that of 16, of 64 pixels: together
    they are what both are alone, in the proportion of their sums."""
    sizes = [64] * dims

    def spread(positions: int, amount: float) -> Tensor:
        grid = torch.zeros(1, *[positions] * dims, dtype=torch.float64)
        grid[(0, *[positions // 2] * dims)] = amount
        return grid

    coarse, fine = spread(8, 1.0), spread(16, -6.0)
    alone, other, both = (of_pixels(seen, sizes) for seen in ([coarse], [fine], [coarse, fine]))
    assert (alone >= 0).all()
    assert (other <= 0).all()
    # both = (p + q) / m, where p = alone / sum(alone) sums to 1 and q to -6.
    p, q = alone / alone.sum(), 6 * other / other.abs().sum()
    torch.testing.assert_close(both, (p + q) / (p + q).abs().max())


def test_pixels_by_hand() -> None:
    """Two positions of 2 and 0 over two pixels: sigma is 1, its reach 3, with the border going on;
    g = exp(-t^2 / 2). The first pixel sees the 2 at t <= 0, the second at t <= -1."""
    g = torch.exp(-(torch.arange(-3.0, 4.0, dtype=torch.float64) ** 2) / 2)
    first, second = 2 * g[:4].sum(), 2 * g[:3].sum()
    expected = torch.stack([torch.ones_like(first), second / first])[None]
    torch.testing.assert_close(of_pixels([tensor([2.0, 0.0])], (2,)), expected)
    torch.testing.assert_close(of_pixels([-tensor([2.0, 0.0])], (2,)), -expected)


def test_a_sample_of_no_evidence_stays_empty_beside_another() -> None:
    found = of_pixels([torch.stack([torch.zeros(3, 3), torch.rand(3, 3)])], (6, 6))
    assert not found[0].any()
    assert found[1].max() == 1


def test_the_channels_share_a_pixels_evidence_as_they_share_the_signal() -> None:
    signal, seen = torch.randn(2, 3, 8, 8), [torch.randn(2, 4, 4), torch.randn(2, 2, 2)]
    values, image = placed(signal, seen, torch.randn(2, 3, 8, 8)), of_pixels(seen, (8, 8))
    torch.testing.assert_close(values, signal.abs() * image[:, None] ** 3)
    assert torch.equal(values.sum(1) > 0, image > 0)  # its sign is the evidence's


def test_without_any_feature_of_extent_it_is_signal_times_image() -> None:
    signal, image = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(placed(signal, [], image), signal * image)


@pytest.mark.parametrize(
    ("amounts", "held"),
    [
        ([5.0, 4.7, 0.2, 0.1, -7.0], [1, 1, 0, 0, 0]),  # 9.7 of 10 are 97 %
        ([5.0, 4.6, 0.3, 0.1, -7.0], [1, 1, 1, 0, 0]),  # 9.6 are less
        ([1.0] * 10, [1] * 10),  # of equals all
        ([0.0, 2.0, 0.0], [0, 1, 0]),
        ([-1.0, -2.0], [0, 0]),
        ([0.0, 0.0], [0, 0]),
        ([1e-30, -1.0], [1, 0]),
    ],
)
def test_the_support_is_the_fewest_that_hold_most(amounts: list[float], held: list[int]) -> None:
    assert support(tensor(amounts)).tolist() == [[bool(one) for one in held]]
    column = support(tensor(amounts).reshape(1, -1, 1))  # of any shape
    assert column.flatten().tolist() == [bool(one) for one in held]


def test_no_support_depends_on_its_batch() -> None:
    samples = torch.randn(4, 5, 6)
    together = support(samples)
    assert all(
        torch.equal(support(one[None])[0], it) for one, it in zip(samples, together, strict=True)
    )


class Narrowing(nn.Module):
    """Three resolutions without any bias, so that nothing is lost on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(*maps, 3, padding=1, bias=False) for maps in ((3, 6), (6, 8), (8, 8), (8, 10))
        )
        self.head = nn.Linear(10, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs[:3]:
            x = F.max_pool2d(F.relu(conv(x)), 2)
        return self.head(F.relu(self.convs[3](x)).mean((2, 3)))


@pytest.mark.parametrize("gamma", [0.0, 0.25, 5.0])
def test_at_every_resolution_the_evidence_sums_to_the_seeded_logits(
    gamma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network, x = Narrowing().double().eval(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    # Where the winner takes all; sharing by activation keeps the sum of the signal instead.
    fbi = ForwardBackward(network, x, Settings.contrast(gamma=gamma, pooling="winner"))
    logits, c = network(x).detach(), torch.tensor([1, 3])
    expected = (seed(logits, c, "contrast") * logits).sum(1)
    seen: list[Tensor] = []

    def spy(resolutions: Any, sizes: Any) -> Tensor:
        seen.extend(resolutions)
        return of_pixels(resolutions, sizes)

    monkeypatch.setattr(evidence, "of_pixels", spy)
    fbi(x, c)
    assert [tuple(one.shape[1:]) for one in seen] == [(2, 2), (4, 4), (8, 8), (16, 16)]
    for one in seen:
        torch.testing.assert_close(one.sum((1, 2)), expected)
    # So it does at the features that are seen on the way.
    for layer in fbi.flow(x, c)[2][:-1]:
        torch.testing.assert_close(layer.evidence.sum((1, 2)), expected)


def test_the_flow_tells_the_evidence_at_each_feature() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.ReLU()]
    network, x = nn.Sequential(*layers, nn.Linear(5, 3)).eval(), torch.randn(2, 3, 6, 6)
    for settings in (Settings.contrast(), Settings.plain(), Settings.paper(tau=0.0)):
        values, _, (dense, spatial, image) = ForwardBackward(network, x, settings).flow(x, 1)
        torch.testing.assert_close(dense.evidence, dense.signal * dense.activation)  # of each unit
        torch.testing.assert_close(spatial.evidence, (spatial.signal * spatial.activation).sum(1))
        after = settings.values == "evidence"
        torch.testing.assert_close(image.evidence, (values if after else values.abs()).sum(1))
        for seen in (dense, spatial, image):
            reached = seen.signal != 0
            reached = reached.any(1) if reached.ndim > 2 else reached
            assert torch.equal(seen.support, support(seen.evidence) if after else reached)
            torch.testing.assert_close(seen.density, seen.support.flatten(1).float().mean(1))


def test_a_border_that_a_maximum_never_takes_is_no_place() -> None:
    """Padding with minus infinity before it is pooled is the pooling's own padding."""
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 4)
    alone = nn.ConstantPad2d(1, -torch.inf), nn.MaxPool2d(3, 2)
    x = torch.randn(2, 3, 8, 8)
    padded, pooled = (
        ForwardBackward(nn.Sequential(first, nn.ReLU(), *pool, last, nn.Flatten()).eval(), x)(x, 1)[
            0
        ]
        for pool in (alone, (nn.MaxPool2d(3, 2, 1),))
    )
    assert padded.any()
    torch.testing.assert_close(padded, pooled)
