"""What the walk reads off a graph: bottlenecks, resolutions, hidden layers, the top layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from torchfbi.capture.capture import capture
from torchfbi.method.graph import Graph


def names(nodes: Iterable[fx.Node]) -> list[str]:
    return [node.meta["layer"] for node in nodes]


def hidden(graph: Graph) -> list[str]:
    return names(node for node in graph.nodes if node in graph.hidden)


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 5),
    )  # fmt: skip


class Residual(nn.Module):
    """Two blocks with a shortcut each, of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.one = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.down, self.two = nn.Conv2d(4, 4, 1, 2), nn.Conv2d(4, 4, 3, 2, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.start(x))
        x = F.relu(self.one(x) + x)
        x = F.relu(self.two(x) + self.down(x))
        return self.head(x.mean((2, 3)))


class DenseNet(nn.Module):
    """Each layer sees all before it: only the joined maps are bottlenecks."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.one = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.two, self.head = nn.Conv2d(6, 2, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        x = torch.cat([x, self.one(F.relu(x))], 1)
        x = torch.cat([x, self.two(F.relu(x))], 1)
        return self.head(F.relu(x).mean((2, 3)))


def wave() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 4, 3, padding=1), nn.SiLU(), nn.AvgPool1d(2),
        nn.Conv1d(4, 4, 1), nn.SiLU(), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5)
    )


SQUARE, LINE = (2, 3, 8, 8), (2, 3, 8)


@pytest.mark.parametrize(
    ("network", "shape", "narrow", "resolutions", "inner", "top"),
    [
        (vgg, SQUARE, ["0", "1", "2", "3", "4"], ["2", "1"], ["3", "6"], "4"),
        (
            Residual, SQUARE,
            ["start", "relu", "add", "relu:2", "add:2", "relu:3"], ["relu:3", "relu"],
            ["one", "two", "down"], "relu:3",
        ),
        (
            DenseNet, SQUARE, ["start", "cat", "cat:2", "relu:3"], ["start"], ["one", "two"],
            "relu:3",
        ),
        (wave, LINE, ["0", "1", "2", "3", "4"], ["2", "1"], ["3"], "4"),
        (dense, SQUARE, [], [], ["3"], None),
    ],
    ids=["vgg", "residual", "densenet", "1-d", "dense"],
)  # fmt: skip
def test_networks_by_hand(
    network: Callable[[], nn.Module],
    shape: tuple[int, ...],
    narrow: list[str],
    resolutions: list[str],
    inner: list[str],
    top: str | None,
) -> None:
    """``resolutions`` from the coarsest to the finest, all else in the order of the network."""
    graph = capture(network().eval(), torch.randn(shape))
    assert names(graph.narrow) == narrow
    assert names(graph.resolutions) == resolutions
    assert hidden(graph) == inner
    assert (graph.top_layer and graph.top_layer.meta["layer"]) == top


def test_where_the_top_layer_has_branches_it_is_where_they_meet() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return (x + F.relu(self.conv(x))).mean((2, 3))

    graph = capture(Branch().eval(), torch.randn(SQUARE))
    assert graph.top_feature is not None
    assert graph.top_feature.meta["layer"] == "relu"
    assert graph.top_layer is not None
    assert graph.top_layer.meta["layer"] == "add"
    assert names(graph.resolutions) == ["add"]  # the convolution has a shortcut around it

    # A size that is read from the image is no shortcut.
    class Sized(Branch):
        def forward(self, x: Tensor) -> Tensor:
            n = x.shape[0]
            return (x + F.relu(self.conv(x))).reshape(n, -1)

    sized = capture(Sized().eval(), torch.randn(SQUARE))
    assert sized.top_layer is not None
    assert sized.top_layer.meta["layer"] == "add"


def test_before_the_first_affine_layer_there_is_nothing_but_the_image() -> None:
    """A pool in front has a size of its own, and no evidence."""
    network = nn.Sequential(
        nn.AvgPool2d(2), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    graph = capture(network.eval(), torch.randn(SQUARE))
    assert names(graph.narrow) == ["0", "1", "2", "3", "4"]
    assert names(graph.resolutions) == ["4"]
