"""Transposed convolutions by another way are the same ones."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from torchfbi.engine import packed, sparse, transposed
from torchfbi.system import layout

aten = torch.ops.aten
onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN"
)


def whole_numbers(*shape: int) -> Tensor:
    """So few and so small that bfloat16 holds every sum of their products."""
    return torch.randint(-2, 3, shape).bfloat16()


def turned_round(s: Tensor, weight: Tensor, *window: Any) -> bool:
    """Whether a forward convolution did it; that it gave what the transposed one gives."""
    expected = aten.convolution.default(s.double(), weight.double(), None, *window)
    stride, padding, dilation, _, leftover, groups = window
    with (
        patch.object(transposed, "onednn_takes", lambda _: True),
        patch.object(transposed, "spaced", wraps=transposed.spaced) as spaced,
    ):
        found = transposed.transposed_convolution(
            s, weight, stride, padding, dilation, leftover, groups
        )
    assert found.dtype == s.dtype
    assert torch.equal(found.double(), expected)
    return bool(spaced.called)


@given(st.data())
def test_zeros_between_and_filters_turned_round(data: st.DataObject) -> None:
    def each(least: int, most: int) -> list[int]:
        return data.draw(st.lists(st.integers(least, most), min_size=2, max_size=2))

    torch.manual_seed(data.draw(st.integers(0, 99)))
    kernel, stride, dilation = each(1, 3), each(1, 3), each(1, 2)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = [data.draw(st.integers(0, most)) for most in reach]
    leftover = [data.draw(st.integers(0, step - 1)) for step in stride]
    sizes = [
        data.draw(st.integers(1 + max(0, -((r - 2 * p) // step)), 6))
        for r, p, step in zip(reach, padding, stride, strict=True)
    ]
    s, weight = whole_numbers(2, 3, *sizes), whole_numbers(3, 1, *kernel)
    window = (stride, padding, dilation, True, leftover, 3)
    assert turned_round(s, weight, *window) == (stride != [1, 1])


@onednn
@given(st.data())
def test_weights_packed_once(data: st.DataObject) -> None:
    def each(least: int, most: int) -> list[int]:
        return data.draw(st.lists(st.integers(least, most), min_size=2, max_size=2))

    torch.manual_seed(data.draw(st.integers(0, 99)))
    kernel, stride, dilation, sizes = each(1, 3), each(1, 3), each(1, 2), each(2, 6)
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = [data.draw(st.integers(0, most // 2)) for most in reach]
    leftover = [data.draw(st.integers(0, step - 1)) for step in stride]
    s, weight = whole_numbers(2, 5, *sizes).float(), whole_numbers(5, 4, *kernel).float()
    expected = aten.convolution.default(
        s, weight, None, stride, padding, dilation, True, leftover, 1
    )
    for _ in range(2):
        found = packed.transposed_convolution(s, weight, (stride, padding, dilation, leftover))
        assert found is not None
        assert torch.equal(found, expected)


@onednn
def test_what_is_packed_is_of_these_weights_and_this_window() -> None:
    def found(s: Tensor, weight: Tensor, stride: int) -> Tensor | None:
        window = [stride] * 2, [1, 1], [1, 1], [stride - 1] * 2
        return packed.transposed_convolution(s, weight, window)

    s, weight = whole_numbers(1, 4, 5, 5).float(), whole_numbers(4, 3, 3, 3).float()
    other = weight + 1
    for stride, filters in ((1, weight), (2, weight), (1, weight), (1, other)):
        leftover = [stride - 1] * 2
        window = [stride] * 2, [1, 1], [1, 1], True, leftover, 1
        expected = aten.convolution.default(s, filters, None, *window)
        assert torch.equal(found(s, filters, stride), expected)
    assert found(s.double(), weight.double(), 1) is None
    assert found(whole_numbers(1, 4, 17, 17).float(), weight, 1) is None
    assert found(whole_numbers(11, 4, 5, 5).float(), weight, 1) is None
    held = len(packed._PACKED)
    del weight, other, filters
    assert len(packed._PACKED) == held - 2


def test_others_stay_transposed() -> None:
    strided = ([2, 2], [1, 1], [1, 1], True, [0, 0])
    s, filters = whole_numbers(1, 4, 5, 5), whole_numbers(4, 1, 3, 3)
    lines, their = s[:, :, 0], filters[:, :, 0]
    assert turned_round(s, filters, *strided, 4)
    assert not turned_round(s.float(), filters.float(), *strided, 4)
    assert not turned_round(s, whole_numbers(4, 2, 3, 3), *strided, 2)
    assert not turned_round(s, whole_numbers(4, 1, 1, 1), *strided, 4)  # it cuts the border off
    assert not turned_round(lines, their, [2], [1], [1], True, [0], 4)


@pytest.mark.parametrize("onednn", [True, False])
def test_a_product_with_and_without_onednn(onednn: bool) -> None:
    torch.manual_seed(0)
    rows, matrix = torch.randn(50, 20), torch.randn(20, 30)
    with patch.object(
        layout, "has_onednn", lambda _: onednn and torch.backends.mkldnn.is_available()
    ):
        assert layout.onednn_takes(rows) <= onednn
        found = sparse._product(rows, matrix)
    torch.testing.assert_close(
        found.double(), rows.double() @ matrix.double(), rtol=1e-5, atol=1e-5
    )
    assert torch.isnan(sparse._product(rows * torch.nan, matrix)).all()
