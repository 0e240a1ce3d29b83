"""The Captum adapter inside the real Captum."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Attribution, LayerAttribution, NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor, nn

from adapters.networks import dense
from torchfbi import Settings, explain
from torchfbi.adapters.captum import ForwardBackward, visualize_image_attr
from torchfbi.errors import InputError, ModelError, TargetError, TrainingModeError
from torchfbi.targets import region

EMPTY = Settings.paper(tau=1e9)


@pytest.mark.parametrize(
    "target", [3, [3, 3], (3,), [(3,), (3,)], torch.tensor(3), torch.tensor([3, 3]), -2]
)
def test_every_form_of_captums_targets(network: nn.Module, images: Tensor, target: Any) -> None:
    values = ForwardBackward(network).attribute(images, target=target)
    assert torch.equal(values, explain(network, images, 3).values)


def test_each_sample_has_its_own_target(network: nn.Module, images: Tensor) -> None:
    values = ForwardBackward(network).attribute(images, target=torch.tensor([0, 4]))
    assert torch.equal(values, explain(network, images, [0, 4]).values)
    assert not torch.equal(values, explain(network, images, [0, 0]).values)


def test_one_position_of_a_dense_output(images: Tensor) -> None:
    fbi = ForwardBackward(dense(), Settings.plain())
    values = fbi.attribute(images, target=(1, 7, 4))
    mask = torch.zeros(16, 16)
    mask[7, 4] = 1
    assert values.any()
    same = fbi.attribute(images, target=region(mask, 1, "one-hot"))
    torch.testing.assert_close(values, same)
    assert torch.equal(values, fbi.attribute(images, target=[(1, 7, 4), (1, 7, 4)]))


def test_without_a_target_the_network_must_have_one_output(images: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, 16), nn.Flatten()).eval()
    values = ForwardBackward(network, Settings.plain()).attribute(images)
    assert torch.equal(values, network[0].weight.detach().expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"not one number for each sample.*model\(inputs\)\.argmax\(1\)"),
        (7, "index 7 is out of bounds"),
        ([1], "length does not match"),
        ([1, 9], "index 9 is out of bounds"),
        ((1, 2), "Cannot choose"),
        (2.5, "not valid"),
        (torch.tensor([1.0, 2.0]), "int32/int64"),
    ],
)
def test_targets_that_pick_nothing_are_refused(
    network: nn.Module, images: Tensor, target: Any, message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        ForwardBackward(network).attribute(images, target=target)


def test_a_tuple_comes_back_as_a_tuple(network: nn.Module, images: Tensor) -> None:
    fbi = ForwardBackward(network)
    (values,) = fbi.attribute((images,), target=1)
    assert torch.equal(values, fbi.attribute(images, target=1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_shape_dtype_and_gradients_are_as_captum_expects(
    network: nn.Module, images: Tensor, dtype: torch.dtype
) -> None:
    x = images.to(dtype).requires_grad_()
    values = ForwardBackward(network.to(dtype)).attribute(x, target=1)
    assert (values.shape, values.dtype, values.device) == (x.shape, dtype, x.device)
    assert not values.requires_grad
    assert x.requires_grad
    assert x.grad is None


def test_what_captum_asks_an_attribution(network: nn.Module) -> None:
    fbi = ForwardBackward(network)
    assert isinstance(fbi, Attribution)
    assert fbi.forward_func is network
    assert fbi.has_convergence_delta() is False
    assert fbi.multiplies_by_inputs is True  # evidence is, a signal is not
    assert ForwardBackward(network, Settings.plain()).multiplies_by_inputs is False


def test_several_inputs_and_further_arguments_are_refused(
    network: nn.Module, images: Tensor
) -> None:
    fbi = ForwardBackward(network)
    with pytest.raises(InputError, match="one input"):
        fbi.attribute((images, images), target=1)
    with pytest.raises(InputError, match="additional_forward_args"):
        fbi.attribute(images, target=1, additional_forward_args=(1,))


def test_a_network_in_training_mode_is_refused(network: nn.Module, images: Tensor) -> None:
    with pytest.raises(TrainingModeError):
        ForwardBackward(network.train()).attribute(images, target=1)


def test_smoothgrad_is_the_mean_over_the_noisy_images(network: nn.Module, images: Tensor) -> None:
    fbi = ForwardBackward(network)
    torch.manual_seed(1)
    smooth = NoiseTunnel(fbi).attribute(images, target=[1, 2], nt_samples=3, stdevs=0.5)
    torch.manual_seed(1)
    noisy = torch.normal(0, torch.full((6, 3, 16, 16), 0.5)) + images.repeat_interleave(3, 0)
    values = fbi.attribute(noisy, target=[1, 1, 1, 2, 2, 2])
    torch.testing.assert_close(smooth, values.reshape(2, 3, 3, 16, 16).mean(1))


@pytest.mark.parametrize("kind", ["smoothgrad_sq", "vargrad"])
def test_the_noise_tunnels_other_kinds(network: nn.Module, images: Tensor, kind: str) -> None:
    tunnel = NoiseTunnel(ForwardBackward(network))
    (values,) = tunnel.attribute((images,), target=1, nt_type=kind, nt_samples=3, stdevs=0.5)
    assert values.shape == images.shape
    assert values.max() > 0
    assert values.min() >= 0


def _perturbed(x: Tensor) -> tuple[Tensor, Tensor]:
    noise = 0.1 * torch.randn_like(x)
    return noise, x - noise


def test_infidelity_of_the_gradient_of_a_linear_network_is_zero(images: Tensor) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)).eval()
    plain = ForwardBackward(network, Settings.plain()).attribute(images, target=2)
    other = torch.roll(plain, 1, 3)
    good, bad = (infidelity(network, _perturbed, images, v, target=2) for v in (plain, other))
    assert (good < 1e-9).all()
    assert (bad > 1e-4).all()


def test_sensitivity_max(network: nn.Module, images: Tensor) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)).eval()
    flat = ForwardBackward(linear, Settings.plain())
    assert (sensitivity_max(flat.attribute, images, target=2) == 0).all()
    moved = sensitivity_max(ForwardBackward(network).attribute, images, target=2)
    assert moved.shape == (2,)
    assert (moved > 0).all()


def test_interpolation(network: nn.Module, images: Tensor) -> None:
    values = ForwardBackward(network).attribute(images, target=1)
    larger = LayerAttribution.interpolate(values, (32, 32))
    assert torch.equal(larger[..., ::2, ::2], values)


def _drawn(figure: Any) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _channels_last(values: Tensor) -> np.ndarray:
    return values[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("show", [visualization.visualize_image_attr, visualize_image_attr])
@pytest.mark.parametrize("method", ["heat_map", "blended_heat_map", "masked_image"])
def test_captums_pictures(
    network: nn.Module, images: Tensor, show: Callable[..., Any], method: str
) -> None:
    values = _channels_last(ForwardBackward(network).attribute(images, target=1))
    photo = np.random.default_rng(0).random((16, 16, 3))
    figure, axes = show(values, photo, method, "absolute_value", use_pyplot=False, title="FBI")
    assert axes.get_title() == "FBI"
    assert _drawn(figure).std() > 0


@pytest.mark.parametrize("sign", ["all", "positive", "negative", "absolute_value"])
@pytest.mark.parametrize("method", ["heat_map", "alpha_scaling"])
def test_an_empty_support_is_shown_and_announced(
    network: nn.Module, images: Tensor, method: str, sign: str
) -> None:
    values = ForwardBackward(network, EMPTY).attribute(images, target=1)
    assert values.shape == images.shape
    assert not values.any()
    empty = _channels_last(values)
    photo = np.random.default_rng(0).random((16, 16, 3))
    with pytest.raises(AssertionError):  # why there is a function of ours
        visualization.visualize_image_attr(empty, photo, method, sign, use_pyplot=False)
    options: dict[str, Any] = {"use_pyplot": False, "show_colorbar": True}
    figure, axes = visualize_image_attr(empty, photo, method, sign, title="Cat", **options)
    assert axes.get_title() == "Cat: empty support"
    assert _drawn(figure).std() > 0
    _, axes = visualize_image_attr(empty, None, "heat_map", sign, **options)
    assert axes.get_title() == "empty support"


def test_an_attribution_without_the_sign_that_is_shown() -> None:
    negative = -np.random.default_rng(0).random((8, 8, 3))
    for sign, title in (("positive", "empty support"), ("negative", "")):
        _, axes = visualize_image_attr(negative, sign=sign, use_pyplot=False)
        assert axes.get_title() == title


def test_an_empty_support_goes_through_captums_metrics(network: nn.Module, images: Tensor) -> None:
    fbi = ForwardBackward(network, EMPTY)
    smooth = NoiseTunnel(fbi).attribute(images, target=1, nt_samples=2)
    assert not smooth.any()
    error = infidelity(network, _perturbed, images, smooth, target=1)
    assert (error > 0).all()
    moved = sensitivity_max(fbi.attribute, images, target=1)
    assert moved.isfinite().all()


def test_without_captum_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.startswith(("captum", "torchfbi.adapters.captum")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(ModelError, match=r"missing\. Install it: pip install captum"):
        importlib.import_module("torchfbi.adapters.captum")
