"""Arithmetic behind a convolution or dense layer is folded into it, where that is exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torchfbi.capture.capture import capture
from torchfbi.method.graph import Graph

aten = torch.ops.aten
G, C = torch.linspace(0.5, 1.7, 5), torch.linspace(-1, 1.4, 5)
MAPS = (-1, 1, 1)


class Behind(nn.Module):
    """A layer and a function of its output."""

    def __init__(self, layer: nn.Module, behind: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.behind = layer.eval(), behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.layer(x))


def captured(layer: nn.Module, behind: Callable[[Tensor], Tensor], *shape: int) -> Graph:
    """Checks that the graph computes what the module does."""
    torch.manual_seed(0)
    module, x = Behind(layer, behind).eval(), torch.randn(2, *shape)
    graph = capture(module, x)
    result = torch.fx.Interpreter(torch.fx.GraphModule(dict(graph.tensors), graph.calls)).run(x)
    with torch.no_grad():
        torch.testing.assert_close(result, module(x), rtol=1e-5, atol=1e-5)
    return graph


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "behind",
    [
        lambda x: (x - C.view(MAPS)) * (torch.rsqrt(G + 1e-3) * C).view(MAPS) + G.view(MAPS),
        lambda x: C.view(1, 5, 1, 1) - x / G.view(MAPS),
        lambda x: G.view(MAPS) + x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
        lambda x: nn.functional.batch_norm(x + C.view(MAPS), C, G, G, C),
    ],
    ids=["batch norm", "turned round", "bias", "both"],
)
def test_into_a_convolution(behind: Callable[[Tensor], Tensor], bias: bool) -> None:
    graph = captured(nn.Conv2d(3, 5, 3, bias=bias), behind, 3, 7, 6)
    assert {node.target for node in graph.nodes} <= {aten.convolution.default, aten.permute.default}


def test_through_a_permutation() -> None:
    graph = captured(nn.Conv2d(3, 5, 3), lambda x: (x.permute(0, 2, 3, 1) - C) * G, 3, 7, 6)
    assert [n.target for n in graph.nodes] == [aten.convolution.default, aten.permute.default]


def test_into_a_dense_layer() -> None:
    graph = captured(nn.Linear(4, 5, bias=False), lambda x: x * G + C, 4)
    assert [node.target for node in graph.nodes] == [aten.linear.default]


@pytest.mark.parametrize(
    "behind",
    [
        lambda x: x + torch.arange(6.0),  # a number a column, not a map
        lambda x: (x * G.view(MAPS)).relu() + x,  # used twice
        lambda x: x * x.mean((2, 3), keepdim=True),
    ],
    ids=["columns", "used twice", "no constant"],
)
def test_not_where_it_is_not_affine_in_each_map(behind: Callable[[Tensor], Tensor]) -> None:
    layer = nn.Conv2d(3, 5, 1)
    graph = captured(layer, behind, 3, 7, 6)
    (convolution,) = [n for n in graph.nodes if n.target is aten.convolution.default]
    assert torch.equal(graph.tensors[str(convolution.args[1])], layer.weight)


def test_parameters_are_not_written_to() -> None:
    layer = nn.Conv2d(3, 5, 3)
    before = layer.weight.detach().clone()
    captured(layer, lambda x: x * G.view(MAPS), 3, 7, 6)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_an_even_border_of_zeros_is_the_convolutions_own(axes: int) -> None:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    layer = kind(3, 5, 3, stride=2, padding=1, dilation=2)
    border = [number for axis in range(axes) for number in (axis + 1, axis + 1)]
    before = nn.Sequential(nn.ConstantPad1d(border, 0.0), layer)
    graph = captured(before, lambda x: x, 3, *range(9, 9 + axes))
    (node,) = graph.nodes
    assert node.target is aten.convolution.default
    assert list(node.args[4]) == [1 + axis + 1 for axis in reversed(range(axes))]


@pytest.mark.parametrize("border", [(0, 1), (1, 0), (2, 1)])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_an_uneven_border_is_met_by_a_row_of_zeros_in_the_filters(
    border: tuple[int, int], axes: int
) -> None:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    widths = [0, 0, *border] if axes > 1 else [*border]
    layer = nn.Sequential(nn.ConstantPad1d(widths, 0.0), kind(3, 6, 3, stride=2, padding=1))
    graph = captured(layer, lambda x: x, 3, *range(9, 9 + axes))
    (node,) = graph.nodes
    assert node.target is aten.convolution.default
    rows = [4 if axis == max(axes - 2, 0) else 3 for axis in range(axes)]
    assert list(graph.tensors[str(node.args[1])].shape[2:]) == rows


@pytest.mark.parametrize(
    ("border", "value"),
    [([0, 2], 0.0), ([1, 2], 0.0), ([1, 1], 0.5), ([-1, -1], 0.0), ([0, 0, 0, 0, 2, 2], 0.0)],
    ids=["two wider", "uneven and dense", "of other numbers", "cut off", "of maps"],
)
def test_another_border_stays(border: list[int], value: float) -> None:
    colours = 5 if border == [1, 2] else 3
    maps = colours + sum(border[4:])
    layer = nn.Sequential(nn.ConstantPad1d(border, value), nn.Conv2d(maps, 5, 3))
    graph = captured(layer, lambda x: x, colours, 8, 9)
    assert [node.target for node in graph.nodes] == [
        aten.constant_pad_nd.default,
        aten.convolution.default,
    ]


def test_a_border_that_others_see_stays_for_them() -> None:
    layer = nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 3, 1))

    class Both(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            padded = layer[0](x)
            return padded * layer[1](padded)

    graph = captured(Both(), lambda x: x, 3, 5, 5)
    convolution = next(n for n in graph.nodes if n.target is aten.convolution.default)
    assert convolution.args[0] is graph.image
    assert list(convolution.args[4]) == [1, 1]
    assert sum(node.target is aten.constant_pad_nd.default for node in graph.nodes) == 1
