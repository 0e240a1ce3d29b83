"""What arrives at the image is smoothed, weighed by the evidence, and selected."""

import pytest
import torch
from torch import Tensor, nn, tensor

from photos import CAT
from torchfbi import ForwardBackward, Photo, Settings, Threshold, load
from torchfbi.capture import capture
from torchfbi.graph import Graph
from torchfbi.placing import antialias, place
from torchfbi.selection import select_pixels


def settings(gate: float, power: float) -> Settings:
    return Settings(place_gate=gate, place_power=power)


@pytest.mark.parametrize(
    ("gate", "power", "weights"),
    [
        (0.0, 0.0, [[1.0, 1.0], [0.0, 1.0]]),
        (0.0, 1.0, [[1.0, 0.5], [0.0, 0.25]]),
        (0.3, 1.0, [[1.0, 0.5], [0.0, 0.0]]),
        (0.3, 2.0, [[1.0, 0.25], [0.0, 0.0]]),
    ],
)
def test_pixels_are_weighted_by_their_share_of_the_largest_evidence(
    gate: float, power: float, weights: list[list[float]]
) -> None:
    """Maps under 23 positions a side are not smoothed: e = 4, 2; -5, 1."""
    drawn = tensor([[[[3.0, -2.0], [1.0, 4.0]], [[1.0, 1.0], [1.0, -1.0]]]])
    evidence = tensor([[[4.0, 2.0], [-5.0, 1.0]]])
    placed = place(drawn, evidence, settings(gate, power))
    assert torch.equal(placed, drawn * tensor(weights))


def test_every_sample_is_measured_by_its_own_maximum() -> None:
    drawn, evidence = torch.ones(3, 1, 2, 2), torch.ones(3, 2, 2)
    evidence[1] *= 1e-3
    evidence[2] *= -1
    placed = place(drawn, evidence, settings(0.5, 1.0))
    assert torch.equal(placed, tensor([1.0, 1.0, 0.0])[:, None, None, None] * drawn)


def test_a_single_position_spreads_over_its_window() -> None:
    """45 positions a side: the window is 3 wide, and smaller at the edge, not padded by zeros."""
    evidence = torch.zeros(1, 45, 45)
    evidence[0, 20, 20] = 9.0
    placed = place(torch.ones(1, 1, 45, 45), evidence, settings(0.1, 1.0))
    expected = torch.zeros(45, 45)
    expected[19:22, 19:22] = 1.0
    assert torch.equal(placed[0, 0], expected)
    corner = torch.ones(1, 45, 45)
    assert torch.allclose(place(torch.ones(1, 1, 45, 45), corner, settings(0.0, 1.0)), corner[0])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_evidence_is_upsampled_in_any_number_of_dimensions(dims: int) -> None:
    evidence = torch.ones(2, *[3] * dims)
    drawn = torch.randn(2, 3, *[7] * dims, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(place(drawn, evidence, settings(0.2, 1.0)), drawn)


def toy(seed: int = 0) -> nn.Module:
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3))
    net = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return net.double().eval()


@pytest.mark.parametrize(("stride", "triangle"), [(1, [1]), (2, [1, 2, 1]), (3, [1, 2, 3, 2, 1])])
def test_a_single_pixel_becomes_a_triangle_as_wide_as_the_stride(
    stride: int, triangle: list[int]
) -> None:
    signal = torch.zeros(1, 2, 12, 12)
    signal[0, 1, 6, 6] = 5.0
    smooth = antialias(signal, torch.zeros(1, 12 // stride, 12 // stride))
    row = torch.zeros(12)
    row[7 - stride : 6 + stride] = tensor(triangle) / stride**2
    assert torch.allclose(smooth[0, 1], 5.0 * row[:, None] * row)
    assert not smooth[0, 0].any()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_what_repeats_with_the_stride_is_smoothed_away(dims: int) -> None:
    """A 1 on each second pixel, as the adjoint of a 1 x 1 filter with stride 2 leaves it."""
    signal = torch.zeros(1, 1, *[8] * dims)
    signal[(..., *[slice(None, None, 2)] * dims)] = 1.0
    smooth = antialias(signal, torch.zeros(1, *[4] * dims))
    inside = smooth[(..., *[slice(1, -1)] * dims)]
    assert torch.allclose(inside, torch.full_like(inside, 0.5**dims))


def contrast_by_hand(net: nn.Module, x: Tensor, target: Tensor, chosen: Settings) -> Tensor:
    """The steps at the image, one by one, on the signal of a walk without them."""
    bare = chosen.override(antialias=False, place_gate=None, place_power=0.0, image_threshold=None)
    values, _, flow = ForwardBackward(net, x, bare).flow(x, target)
    first = flow[-2]
    evidence = (first.signal * first.activation).sum(1)
    assert chosen.image_threshold is not None
    return select_pixels(
        place(antialias(values, evidence), evidence, chosen), chosen.image_threshold
    )


def test_the_contrast_preset_smooths_places_and_selects_at_the_image() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 3, 16, 16, generator=generator, dtype=torch.float64)
    target = tensor([0, 1, 2, 3, 0])
    net, chosen = toy(), Settings.contrast(evidence_gate=0.1)
    values, _ = ForwardBackward(net, x, chosen)(x, target)
    assert values.any(dim=(1, 2, 3)).sum() >= 3
    assert torch.equal(values, contrast_by_hand(net, x, target, chosen))


def test_the_same_on_a_photo() -> None:
    network = load("efficientnet-lite0")
    x = network.preprocess(Photo.read(CAT))[0][None]
    target = tensor([281])
    values, _ = ForwardBackward(network.module, x)(x, target)
    expected = contrast_by_hand(network.module, x, target, Settings.contrast())
    assert torch.equal(values, expected)


def test_pixels_go_on_whole() -> None:
    """Magnitudes 5, 3, 1, 1: the first two hold 80 % of the sum."""
    signal = tensor([[[[4.0, 1.0], [-1.0, 0.5]], [[-1.0, 2.0], [0.0, -0.5]]]])
    kept = tensor([[1.0, 1.0], [0.0, 0.0]])
    assert torch.equal(select_pixels(signal, Threshold("mass", 0.7)), signal * kept)


def test_a_target_function_is_asked_once() -> None:
    asked = []

    def target(logits: Tensor) -> Tensor:
        asked.append(logits)
        return logits.argmax(1)

    net, x = toy(), torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    ForwardBackward(net, x)(x, target)
    assert len(asked) == 1


def test_a_network_without_feature_maps_is_not_placed() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)).double().eval()
    x = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chosen = Settings.contrast(image_threshold=None)
    values, _ = ForwardBackward(net, x, chosen)(x)
    bare, _ = ForwardBackward(net, x, chosen.override(place_gate=None, place_power=0.0))(x)
    assert values.any()
    assert torch.equal(values, bare)


class Preactivated(nn.Module):
    """Its first activation lies in a branch, around which a shortcut goes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.branch = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.branch(x)
        return self.head(torch.relu(x).mean((2, 3)))


def stem_of(module: nn.Module) -> str | None:
    graph: Graph = capture(module.eval(), torch.zeros(1, 3, 16, 16))
    return None if graph.stem is None else str(graph.stem.target)


def test_the_stem_is_the_first_tensor_that_no_shortcut_goes_around() -> None:
    assert stem_of(toy().float()) == "aten.relu.default"
    assert stem_of(Preactivated()) == "aten.add.Tensor"
    assert stem_of(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())) is None  # it is the output
    assert stem_of(nn.Sequential(nn.Flatten(), nn.Linear(768, 2), nn.ReLU())) is None
