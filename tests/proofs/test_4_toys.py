"""Proof 4: toys small enough to be computed by hand, each step in the comments."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings, explain
from torchfbi.errors import OutputError


class Toy(nn.Module):
    """A forward given as a function of the image, with a fixed dense layer on top."""

    def __init__(
        self, forward: Callable[..., Tensor], weight: list[list[float]], bias: list[float]
    ) -> None:
        super().__init__()
        self.body = forward
        self.relu = nn.ReLU()
        self.top = nn.Linear(len(weight[0]), len(weight))
        self.top.weight.data = torch.tensor(weight)
        self.top.bias.data = torch.tensor(bias)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.body(self, x).flatten(1))


def image(*pixels: float) -> Tensor:
    return torch.tensor(pixels, dtype=torch.float32).reshape(1, 1, 1, -1)


def walked(net: nn.Module, x: Tensor, settings: Settings, target: int | None = None) -> list[float]:
    values, _ = ForwardBackward(net, x, settings)(x, target)
    return values.flatten().tolist()


TWO_PIXELS = Toy(lambda toy, x: toy.relu(2 * x), [[1.0, -1.0], [0.0, 1.0]], [0.5, 0.0])


def test_two_pixels_through_the_paper() -> None:
    # a = ReLU(2 x) = (4, 6); z = (4 - 6 + 0.5, 6) = (-1.5, 6), so c = 1.
    # seed = (min z, max z) = (-1.5, 6); s - b = (-2, 6).
    # W^T (s - b) = (1 * -2 + 0 * 6, -1 * -2 + 1 * 6) = (-2, 8); s * a = (-8, 48).
    # tau = 10 keeps the second entry; ReLU(8) = 8; the adjoint of 2 x doubles it.
    assert walked(TWO_PIXELS, image(2, 3), Settings.paper(tau=10.0)) == [0.0, 16.0]
    assert walked(TWO_PIXELS, image(2, 3), Settings.paper(tau=48.0)) == [0.0, 0.0]


def test_two_pixels_through_the_contrast() -> None:
    # seed for c = 0 of two classes: e_0 - 3/4 e_1;
    # W^T s = (1, -1.75); s * a = (4, -10.5).
    settings = Settings.contrast(values="signal")
    assert walked(TWO_PIXELS, image(2, 3), settings, target=0) == [2.0, -3.5]
    # tau = 1 keeps the first entry alone, and tau = 4 none: above is strict.
    assert walked(TWO_PIXELS, image(2, 3), settings.override(tau=1.0), target=0) == [2.0, 0.0]
    assert walked(TWO_PIXELS, image(2, 3), settings.override(tau=4.0), target=0) == [0.0, 0.0]
    # No feature lies behind an affine layer here: the evidence is that at the image itself, s * x.
    assert walked(TWO_PIXELS, image(2, 3), Settings.contrast(), target=0) == [4.0, -10.5]
    # Where x is negative it changes sign: z = ReLU(-x) has the signal -1 there.
    net = Toy(lambda toy, x: toy.relu(-x), [[1.0, 1.0]], [0.0])
    settings = Settings.plain(values="evidence")
    assert walked(net, image(-2, 3), settings) == [2.0, 0.0]


def test_signals_that_meet_are_summed() -> None:
    # ReLU(u) + u at u = (1, -1): the sum hands 1 to both ways; ReLU's mask is (1, 0).
    net = Toy(lambda toy, x: toy.relu(3 * x) + 3 * x, [[1.0, 1.0]], [0.0])
    assert walked(net, image(1, -1), Settings.plain()) == [6.0, 3.0]


def test_a_reused_relu_is_two_features() -> None:
    # a1 = ReLU(x - 1) = (0, 2); a2 = ReLU(5 - 2 a1) = (5, 1); z = a2_1 + 4 a2_2.
    # s at a2 = (1, 4), s at a1 = (-2, -8): masked by a1 > 0 to (0, -8).
    net = Toy(lambda toy, x: toy.relu(5 - 2 * toy.relu(x - 1)), [[1.0, 4.0]], [0.0])
    x = image(0.5, 3)
    values, logits, flow = ForwardBackward(net, x, Settings.plain()).flow(x)
    assert logits.item() == 5 + 4 * 1
    assert values.flatten().tolist() == [0.0, -8.0]
    assert [seen.layer for seen in flow] == ["relu:2", "relu", "image"]
    assert flow[0].incoming.flatten().tolist() == [1.0, 4.0]
    assert flow[1].incoming.flatten().tolist() == [-2.0, -8.0]


def test_overlapping_pools_average_and_take_the_minimum() -> None:
    # Windows {1, 2, 3} and {3, 4, 5} of ReLU(x) = (1, 2, 5, 3, 0): both have maximum 5.
    # z = 2 m_1 + 8 m_2, seed 1 (one class: max z = z): paper seed is z = 50.
    # With a one-hot seed the pooled signal is (2, 8); copied: 2 2 (2+8)/2 8 8; the forward maps
    # copied: 5 5 5 5 5; the minimum: 2 2 5 5 5. ReLU lets the positive pass; x is selected by
    # p > 0: the last entry has a = 0.
    pool = nn.MaxPool2d((1, 3), (1, 2))
    net = Toy(lambda toy, x: pool(toy.relu(x)), [[2.0, 8.0]], [0.0])
    settings = Settings.paper(seed="one-hot", tau=0.0)
    assert walked(net, image(1, 2, 5, 3, -1), settings) == [2.0, 2.0, 5.0, 5.0, 0.0]
    # The winner takes all: the third pixel is the maximum of both windows.
    assert walked(net, image(1, 2, 5, 3, -1), Settings.plain()) == [0.0, 0.0, 10.0, 0.0, 0.0]
    # By activation: 2 * (1, 2, 5) / 8 and 8 * (5, 3, 0) / 8.
    settings = Settings.plain(pooling="proportional")
    assert walked(net, image(1, 2, 5, 3, -1), settings) == [0.25, 0.5, 6.25, 3.0, 0.0]


def test_a_negative_signal_gives_an_empty_support_that_says_so() -> None:
    net = Toy(lambda toy, x: toy.relu(x), [[-1.0, -1.0]], [0.0])
    settings = Settings.paper(seed="one-hot", tau=0.0)
    explanation = explain(net, image(1, 2), settings=settings)
    assert not explanation.support.any()
    assert explanation.density.tolist() == [0.0]
    assert "empty support" in repr(explanation)


def test_one_of_several_outputs() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            flat = torch.relu(x).flatten(1)
            return {"double": 2 * flat, "triple": 3 * flat}

    net, x = Two().eval(), image(1, 2)
    with pytest.raises(OutputError, match="'double', 'triple'"):
        ForwardBackward(net, x)
    values, logits = ForwardBackward(net, x, Settings.plain(), output="triple")(x, 0)
    assert logits.tolist() == [[3.0, 6.0]]
    assert values.flatten().tolist() == [3.0, 0.0]


def test_the_signal_of_a_tuple_returns_to_its_slices() -> None:
    # chunk gives (x1, x2) and (x3, x4); z = 1 * 10 x3 + 2 * 10 x4 + 3 x1 + 4 x2.
    def body(toy: Toy, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 3)
        return torch.cat([10 * second, first], 3)

    net = Toy(body, [[1.0, 2.0, 3.0, 4.0]], [0.0])
    assert walked(net, image(1, 1, 1, 1), Settings.plain()) == [3.0, 4.0, 10.0, 20.0]


def test_the_top_map_alone_goes_on() -> None:
    # Two maps of one pixel each: a = ReLU(1 x, 2 x) = (3, 6).
    # With weights of (5, 4) in all the total signal of the first map is larger, though
    # the second one's product with its activation is, 24 > 15: it goes on alone.
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1))
    net[0].weight.data = torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
    net[3].weight.data = torch.tensor([[2.5, 2.5, 2.0, 2.0]])
    net[3].bias.data.zero_()
    net.eval()
    x = image(3, 3)
    settings = Settings.paper(seed="one-hot", tau=0.0, k=0.5)
    assert walked(net, x, settings) == [2.5, 2.5]
    assert walked(net, x, settings.override(k=1.0)) == [6.5, 6.5]
