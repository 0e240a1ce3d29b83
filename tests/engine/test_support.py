"""The support by sorted bits is the method's, bit by bit."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays

from torchfbi.engine.support import support
from torchfbi.method import evidence


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@given(
    amounts=arrays(
        "float32",
        st.tuples(st.integers(0, 3), st.integers(1, 40)),
        elements=st.one_of(
            st.sampled_from([0.0, -0.0, 1.0, 2.0**-149]), st.floats(-(2.0**99), 2.0**99, width=32)
        ),
    )
)
def test_the_support_is_the_methods(dtype: torch.dtype, amounts: object) -> None:
    signed = torch.as_tensor(amounts).to(dtype)
    assert torch.equal(support(signed), evidence.support(signed))


def test_of_a_whole_image() -> None:
    torch.manual_seed(0)
    signed = torch.randn(2, 96, 80) ** 9
    assert torch.equal(support(signed), evidence.support(signed))
    assert torch.equal(support(signed[:, :, 0]), evidence.support(signed[:, :, 0]))
