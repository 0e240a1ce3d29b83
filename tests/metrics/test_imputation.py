"""ROAD: holes filled by hand, by harmonic ramps, and as pytorch-grad-cam fills them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from torchfbi.errors import InputError
from torchfbi.metrics import impute, removal
from torchfbi.metrics.removal import NOISE
from torchfbi.models.torchvision import import_torchvision

import_torchvision()  # pytorch-grad-cam imports it, and may need its operators declared

from pytorch_grad_cam.metrics.road import (  # noqa: E402
    NoisyLinearImputer,
    neighbors_weights,
)

# It puts tensors where NumPy 2 wants arrays.
own_deprecation = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept")


def holes(number: int, share: float, height: int, width: int) -> Tensor:
    removed = torch.rand(1, height, width, generator=torch.Generator().manual_seed(number)) < share
    removed[:, 0, 0] = False
    return removed


# Imputation


def test_one_pixel_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 99.0, 6.0], [7.0, 8.0, 12.0]]]])
    centre, corner = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    centre[:, 1, 1] = corner[:, 0, 0] = True
    filled = impute(x, centre)
    assert filled[0, 0, 1, 1].item() == pytest.approx((2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 12) / 12)
    # At the corner two neighbours and one diagonal are left, weights 2 : 2 : 1.
    assert impute(x, corner)[0, 0, 0, 0].item() == pytest.approx((2 * 2 + 2 * 4 + 99) / 5, rel=1e-4)
    assert torch.equal(filled[:, ~centre[0][None].expand(1, 3, 3)], x[:, ~centre])
    assert x[0, 0, 1, 1] == 99


def test_two_pixels_that_lean_on_each_other() -> None:
    x = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    x[..., 0] = 3.0
    removed = torch.tensor([[[False, True, True, False]]])
    assert impute(x, removed, 1e-12).flatten().tolist() == pytest.approx([3, 2, 1, 0])


def test_a_ramp_is_restored_in_a_hole_of_any_shape() -> None:
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    ramp = torch.stack([rows + 2 * columns, 5 - rows])[None].double()
    hole = (rows - 9) ** 2 + (columns - 11) ** 2 < 64
    torch.testing.assert_close(impute(ramp, hole[None], 1e-12), ramp)


@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.95]), st.integers(1, 14))
def test_the_equations_are_those_of_pytorch_grad_cam(
    number: int, share: float, height: int
) -> None:
    width = 13
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(1, 3, height, width, generator=generator, dtype=torch.float64)
    removed = holes(number, share, height, width)
    if not removed.any():
        return
    a, b = NoisyLinearImputer.setup_sparse_system(
        (~removed[0]).double().numpy(), x[0].numpy(), neighbors_weights
    )
    expected = x[0].clone()
    expected[:, removed[0]] = torch.from_numpy(spsolve(csc_matrix(a), b).reshape(-1, 3).T)
    torch.testing.assert_close(impute(x, removed, 1e-11)[0], expected, rtol=0, atol=1e-8)


def test_the_default_tolerance_stays_below_the_noise() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    x = torch.rand(1, 3, 64, 64)
    for removed in ((rows - 30) ** 2 + (columns - 34) ** 2 < 1100, torch.rand(64, 64) < 0.9):
        rough, exact = impute(x, removed[None]), impute(x.double(), removed[None], 1e-10)
        assert (rough - exact).abs().max() < 0.01


def test_every_image_is_filled_on_its_own() -> None:
    x = torch.rand(3, 3, 12, 10)
    removed = torch.cat([holes(i, share, 12, 10) for i, share in enumerate([0.2, 0.9, 0.0])])
    filled = impute(x, removed)
    for i in range(3):
        assert torch.equal(impute(x[i : i + 1], removed[i : i + 1])[0], filled[i])
    assert torch.equal(filled[2], x[2])
    assert filled.dtype == x.dtype
    assert impute(x.half(), removed).dtype == torch.float16
    assert torch.equal(impute(torch.zeros(1, 3, 12, 10), removed[:1]), torch.zeros(1, 3, 12, 10))


def test_imputation_refuses() -> None:
    x = torch.rand(1, 3, 4, 4)
    with pytest.raises(InputError, match=r"\(N, H, W\)"):
        impute(x, torch.zeros(1, 3, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="nothing is left"):
        impute(x, torch.ones(1, 4, 4, dtype=torch.bool))


# As a removal


@own_deprecation
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=10, deadline=None)
def test_pytorch_grad_cam_fills_colour_images_alike(number: int, share: float) -> None:
    x = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(number))
    removed = holes(number, share, 10, 10)
    theirs = NoisyLinearImputer(noise=0.0)(x[0], ~removed[0])
    torch.testing.assert_close(impute(x, removed)[0], theirs.float(), rtol=0, atol=2e-3)


def test_the_noise_is_seeded_and_lies_on_removed_pixels_only() -> None:
    x, both = torch.full((2, 3, 16, 16), 0.5), torch.tensor([0, 1])
    removed = torch.cat([holes(0, 0.25, 16, 16), holes(1, 0.5, 16, 16)])
    state = torch.get_rng_state()
    filled = removal(x, "road", seed=3)(both, removed)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal((filled != 0.5).any(1), removed)
    assert filled[(filled != 0.5)].std().item() == pytest.approx(NOISE, rel=0.15)
    assert torch.equal(removal(x, "road", seed=3)(both, removed), filled)
    assert not torch.equal(removal(x, "road", seed=4)(both, removed), filled)
