"""In-place operators: the graph is functional, the answer and the gradient stay the same."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.capture.exporting import exported
from torchfbi.capture.rewrite import has_aliased_mutation


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.function, self.conv = function, nn.Conv2d(3, 4, 3, padding=1)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.conv).flatten(1)


def slice_used_alone(x: Tensor, conv: nn.Module) -> Tensor:
    y = torch.cat([conv(x), conv(x)], 1)[:, :4]
    y += conv(x)
    return y.relu_()


def old_name_read_later(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x)
    z = y.mul_(3)
    z.add_(x.sum(1, keepdim=True))
    y.mul_(2)
    return y * 1.5 + z


def dropout_is_the_same_tensor(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x)
    F.dropout(y, 0.5, training=False).relu_()
    return y


def view_made_after(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x)
    y.mul_(3)
    z = y.flatten(2)
    z.mul_(2)
    return z + 1


def copy_is_another_tensor(x: Tensor, conv: nn.Module) -> Tensor:
    y = x.clone()
    y.mul_(2)
    z = conv(y)
    z.clone().relu_()
    return z + conv(x)


def base_read_later(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x)
    y[:, :2].mul_(3)
    return y.relu()


def view_read_later(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x)
    z = y.flatten(1)
    y.relu_()
    return z


def entries_written(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x)
    y[:, 0] = conv(x)[:, 1] * 2
    return y


SIMPLE = [
    slice_used_alone,
    old_name_read_later,
    dropout_is_the_same_tensor,
    view_made_after,
    copy_is_another_tensor,
]
ALIASED = [base_read_later, view_read_later, entries_written]


@pytest.mark.parametrize("function", [*SIMPLE, *ALIASED])
def test_in_place_operators(function: Callable[[Tensor, nn.Module], Tensor]) -> None:
    net, x = Apply(function), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    answer = net(leaf)
    (gradient,) = torch.autograd.grad(answer[:, 5].sum(), leaf)
    values, logits = ForwardBackward(net, x, Settings.plain())(x, 5)
    torch.testing.assert_close(logits, answer.detach())
    torch.testing.assert_close(values, gradient)


@pytest.mark.parametrize("function", [*SIMPLE, *ALIASED])
def test_only_memory_read_under_another_name_needs_the_slow_way(
    function: Callable[[Tensor, nn.Module], Tensor],
) -> None:
    program = exported(Apply(function), torch.zeros(2, 3, 6, 6, dtype=torch.float64))
    assert has_aliased_mutation(program.graph) == (function in ALIASED)
