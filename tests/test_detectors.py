"""``targets.box``: a class or a coordinate of one candidate, at a detector's raw output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings, explain
from torchfbi.errors import TargetError
from torchfbi.method.seeds import seed
from torchfbi.targets import box, overlapping

CLASSES, PLACES = 5, 16


class Yolo(nn.Module):
    """(N, 4 + classes, places), or with the dimensions swapped."""

    def __init__(self, swapped: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
        self.head, self.swapped = nn.Conv2d(8, 4 + CLASSES, 1), swapped

    def forward(self, x: Tensor) -> Tensor:
        raw = self.head(self.features(x)).flatten(2)
        return raw.mT if self.swapped else raw


def network(swapped: bool = False) -> tuple[Yolo, Tensor]:
    torch.manual_seed(0)
    return Yolo(swapped).double().eval(), torch.randn(2, 3, 16, 16).double()


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("channel", [2, 4 + 3])
def test_a_class_and_a_coordinate_of_one_candidate(channel: int, swapped: bool) -> None:
    net, x = network(swapped)
    at = torch.tensor([5, 9])
    asked = box(at, channel, "one-hot", dim=2 if swapped else 1, classes=slice(4, None))
    values, _ = ForwardBackward(net, x, Settings.plain())(x, asked)
    leaf = x.clone().requires_grad_()
    raw = net(leaf) if swapped else net(leaf).mT
    (gradient,) = torch.autograd.grad(raw[torch.arange(2), at, channel].sum(), leaf)
    torch.testing.assert_close(values, gradient, rtol=1e-9, atol=1e-12)
    row, column = divmod(5, 4)
    outside = values[0].clone()
    outside[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
    assert values[0].any()
    assert not outside.any()


def test_a_class_is_asked_against_its_rivals_at_that_candidate() -> None:
    net, x = network()
    output = net(x)
    found = box(5, 4 + 3, dim=1, classes=slice(4, None))(output)
    expected = seed(output[:, 4:, 5], torch.tensor([3, 3]), "contrast")
    torch.testing.assert_close(found[:, 4:, 5], expected)
    found[:, 4:, 5] = 0
    assert not found.any()
    explanation = explain(net, x, box(5, 4 + 3, dim=1, classes=slice(4, None)))
    assert explanation.target is None
    panels = {axes.get_label(): axes for axes in explanation.plot(box=(4, 2, 8, 10)).axes}
    drawn = [patch.get_bbox().extents.tolist() for patch in panels["evidence"].patches]
    scaled = [28.0 * edge for edge in (4, 2, 8, 10)]  # 16 pixels are drawn as 448
    assert drawn[-2:] == [scaled] * 2  # a line, and a wider one beneath it


def test_the_candidate_at_a_box() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15], [5, 5, 40, 40]])
    assert overlapping(boxes, (4, 4, 16, 16)) == 1
    swapped = torch.stack([boxes, boxes.flip(0)])
    assert overlapping(swapped, torch.tensor([0, 0, 9, 9])).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: box(PLACES, 4, dim=1), "16 candidates"),
        (lambda: box(0, 4 + CLASSES, dim=1), "no channel 9"),
        (lambda: box(0, 1, dim=0), "needs \\(N, candidates"),
    ],
)
def test_what_is_not_there_is_refused(asked, message: str) -> None:
    net, x = network()
    with pytest.raises(TargetError, match=message):
        explain(net, x, asked())


def test_a_box_that_nothing_overlaps_is_refused() -> None:
    with pytest.raises(TargetError, match="no candidate overlaps"):
        overlapping(torch.tensor([[0.0, 0, 1, 1]]), (2, 2, 3, 3))
    with pytest.raises(TargetError, match="left, top, right, bottom"):
        overlapping(torch.zeros(3, 4), (1, 2))
