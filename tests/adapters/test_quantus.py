"""The explain_func inside the real Quantus, whose checks and metrics call it."""

from __future__ import annotations

import numpy as np
import pytest
import quantus
import torch
from torch import nn

from adapters.networks import dense, small
from torchfbi import Settings, explain
from torchfbi.adapters.quantus import explain_func
from torchfbi.errors import SettingsError, TargetError

X = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
Y = np.array([0, 3, 4])


@pytest.fixture
def network() -> nn.Module:
    return small()


def test_the_values_summed_over_the_colours(network: nn.Module) -> None:
    found = explain_func(network, X, Y)
    expected = explain(network, torch.from_numpy(X), Y.tolist()).values
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert found.shape == (3, 1, 16, 16)
    assert np.array_equal(found, expected.sum(1, keepdim=True).numpy())


def test_settings_by_name_or_object(network: nn.Module) -> None:
    plain = explain_func(network, X, Y, settings="plain")
    assert np.array_equal(plain, explain_func(network, X, Y, settings=Settings.plain()))
    assert not np.array_equal(plain, explain_func(network, X, Y))
    with pytest.raises(SettingsError, match="unknown"):
        explain_func(network, X, Y, settings="saliency")


def test_other_dtypes_and_forms(network: nn.Module) -> None:
    expected = explain_func(network, X, Y)
    assert np.array_equal(expected, explain_func(network, X.astype(np.float64), list(Y)))
    halved = explain_func(small().to(torch.bfloat16), X, Y, device="cpu")
    assert halved.dtype == np.float32
    assert np.array_equal(explain_func(network, X, np.int64(3))[1], expected[1])


def test_targets_that_do_not_exist_are_refused(network: nn.Module) -> None:
    with pytest.raises(TargetError, match="no class"):
        explain_func(network, X, np.array([0, 1, 5]))
    with pytest.raises(TargetError, match=r"\(N, classes\)"):
        explain_func(dense(), X, Y)


def test_quantus_own_check(network: nn.Module) -> None:
    found = explain_func(network, X, Y)
    quantus.helpers.asserts.assert_attributions(X, found)


@pytest.mark.parametrize("settings", ["contrast", "plain"])
def test_max_sensitivity_of_a_linear_network_is_zero_and_of_another_is_not(
    network: nn.Module, settings: str
) -> None:
    def measured(model: nn.Module) -> np.ndarray:
        metric = quantus.MaxSensitivity(nr_samples=2, disable_warnings=True)
        return np.array(
            metric(
                model,
                X,
                Y,
                explain_func=explain_func,
                explain_func_kwargs={"settings": settings},
                channel_first=True,
                device="cpu",
            )
        )

    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)).eval()
    assert (measured(network) > 0).all()
    if settings == "plain":
        assert (measured(linear) == 0).all()


def test_random_logit_tells_class_discriminative_settings_apart(network: nn.Module) -> None:
    metric = quantus.RandomLogit(
        num_classes=5, similarity_func=quantus.correlation_pearson, disable_warnings=True
    )
    scores = metric(network, X, Y, explain_func=explain_func, channel_first=True)
    assert len(scores) == 3
    assert max(scores) < 0.9


def test_randomised_parameters_change_the_explanation(network: nn.Module) -> None:
    metric = quantus.MPRT(
        layer_order="bottom_up",
        similarity_func=quantus.correlation_pearson,
        disable_warnings=True,
    )
    scores = metric(network, X, Y, explain_func=explain_func, channel_first=True)
    assert np.allclose(scores["original"], 1)
    assert len(scores) == 1 + 3  # two convolutions and a dense layer
    assert max(scores["6"]) < 0.5


def test_a_metric_that_removes_pixels(network: nn.Module) -> None:
    metric = quantus.RegionPerturbation(
        patch_size=4, regions_evaluation=4, disable_warnings=True, normalise=True
    )
    scores = metric(network, X, Y, explain_func=explain_func, channel_first=True)
    assert np.isfinite(scores).all()
