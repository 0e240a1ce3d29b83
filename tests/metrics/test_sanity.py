"""Class correlation, randomised copies and sensitivity: in closed form, and against SciPy and
Quantus."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import quantus
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from torchfbi import Model
from torchfbi.errors import InputError, SettingsError
from torchfbi.metrics import cascade, class_correlation, max_sensitivity, randomise_head
from torchfbi.metrics.ranks import average_ranks


def network() -> nn.Sequential:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 50)]
    for parameter in layers[1].parameters():
        nn.init.normal_(parameter)
    return nn.Sequential(*layers).eval().requires_grad_(False)


# Ranks


def test_ranks_by_hand() -> None:
    ranks = average_ranks(torch.tensor([[3.0, 1, 3, 2], [5, 5, 5, 5]]))
    assert ranks.tolist() == [[3.5, 1, 3.5, 2], [2.5, 2.5, 2.5, 2.5]]


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_ranks_are_those_of_scipy(number: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(number)
    values = torch.randint(levels, (3, 17), generator=generator).float()
    expected = scipy.stats.rankdata(values.numpy(), axis=1)
    assert average_ranks(values).numpy().tolist() == expected.tolist()


# Correlation between maps


def test_correlation_by_hand() -> None:
    a = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert class_correlation(a, a**3).tolist() == [1]
    assert class_correlation(a, 5 - a).tolist() == [-1]
    assert class_correlation(a, torch.tensor([[[1.0, 2.0], [4.0, 3.0]]])).item() == pytest.approx(
        0.8
    )
    assert math.isnan(class_correlation(a, torch.full((1, 2, 2), 0.1)).item())
    assert math.isnan(class_correlation(torch.zeros(1, 2, 2), a).item())


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_correlation_is_that_of_scipy(number: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(number)
    a, b = torch.randint(levels, (2, 3, 5, 4), generator=generator).float()
    a[:, 0, 0], b[:, 0, 1] = levels, levels  # no map is constant
    pairs = zip(a.flatten(1).numpy(), b.flatten(1).numpy(), strict=True)
    expected = [scipy.stats.spearmanr(*pair).statistic for pair in pairs]
    torch.testing.assert_close(class_correlation(a, b), torch.tensor(expected).double())


def test_correlation_refuses_maps_that_do_not_belong_together() -> None:
    with pytest.raises(InputError, match="1 maps for 2 samples"):
        class_correlation(torch.rand(2, 3, 3), torch.rand(1, 3, 3))
    with pytest.raises(InputError, match=r"\(3, 4\)|\(2, 3, 4\)"):
        class_correlation(torch.rand(2, 3, 3), torch.rand(2, 3, 4))


# Randomised parameters


def test_the_cascade_goes_from_the_top_down_and_keeps_what_it_drew() -> None:
    module = network()
    names, copies = zip(*cascade(module, seed=3), strict=True)
    assert names == ("4", "1", "0")
    for depth, randomised in enumerate(copies):
        for name, parameter in randomised.named_parameters():
            original = module.get_parameter(name)
            layer, _, _ = name.partition(".")
            if names.index(layer) > depth:
                assert torch.equal(parameter, original)
            else:
                assert (parameter != original).all()
                assert torch.equal(parameter, copies[-1].get_parameter(name))
        for name, buffer in randomised.named_buffers():
            assert torch.equal(buffer, module.get_buffer(name))


def test_copies_do_not_share_memory() -> None:
    module = network()
    copies = [randomised for _, randomised in cascade(module)]
    memory = {p.data_ptr() for one in (module, *copies) for p in one.parameters()}
    assert len(memory) == 4 * 6


def test_the_module_and_the_global_generator_stay_as_they_are() -> None:
    module = network()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    for _, randomised in cascade(module):
        assert not randomised.training
        assert not any(p.requires_grad for p in randomised.parameters())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_head_is_the_first_step() -> None:
    module = network()
    head, (_, first) = randomise_head(module, seed=5), next(cascade(module, seed=5))
    for a, b in zip(head.parameters(), first.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(randomise_head(module, seed=6)[4].weight, head[4].weight)


def test_nothing_is_left_of_a_layer_but_its_scale() -> None:
    module = nn.Linear(300, 200)
    nn.init.normal_(module.weight, 0.5, 3.0)
    old, new = module.weight.detach(), randomise_head(module).weight.detach()
    assert new.mean().item() == pytest.approx(old.mean().item(), abs=0.05)
    assert new.std().item() == pytest.approx(old.std().item(), rel=0.02)
    assert abs(torch.corrcoef(torch.stack([old.flatten(), new.flatten()]))[0, 1]) < 0.02


def test_the_signal_survives_a_deep_random_network(lite: Model) -> None:
    names, deepest = [], lite.module
    for name, deepest in cascade(lite.module):  # noqa: B007
        names.append(name)
    assert names[0] == "_fc"
    assert len(names) == 99  # 49 convolutions and their batch norms, and a dense layer
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    logits = deepest(x)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
    assert 1e-4 < gradient.abs().mean() < 1e4
    assert logits.std(0).mean() > 1e-2  # it still tells images apart


def test_parameters_of_any_layer_and_dtype() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(4, dtype=torch.bfloat16))
            self.inner = nn.LayerNorm(4)

    names = [name for name, _ in cascade(Scaled())]
    assert names == ["inner", ""]
    assert randomise_head(Scaled()).scale.dtype == torch.bfloat16


def test_a_module_without_parameters_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to randomise"):
        randomise_head(nn.ReLU())
    assert list(cascade(nn.ReLU())) == []


# Sensitivity


def test_sensitivity_in_closed_form() -> None:
    x = torch.zeros(2, 1, 1, 1)
    maps = torch.tensor([4.0, 0.0]).reshape(2, 1, 1)
    found = max_sensitivity(lambda y: maps + 2 * y[:, 0].abs(), x, maps, radius=0.1, samples=200)
    assert 0.95 * 2 * 0.1 / 4 < found[0] <= 2 * 0.1 / 4
    assert found[1].isnan()  # nothing to be relative to
    assert max_sensitivity(lambda y: maps, x, maps)[0] == 0


def test_more_samples_find_no_less_and_the_batch_does_not_matter() -> None:
    x = torch.randn(3, 2, 4, 4)

    def attribute(y: Tensor) -> Tensor:
        return (y**2).sum(1)

    few, many = (max_sensitivity(attribute, x, attribute(x), samples=n) for n in (2, 20))
    assert (few <= many).all()
    assert (few < many).any()
    alone = max_sensitivity(attribute, x[1:2], attribute(x[1:2]), samples=2)
    assert torch.equal(alone, few[1:2])
    doubled = max_sensitivity(lambda y: 2 * attribute(y), x, 2 * attribute(x), samples=2)
    torch.testing.assert_close(doubled, few)


def test_quantus_agrees_on_the_same_noise() -> None:
    module, x = network().double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)

    def attribute(y: Tensor) -> Tensor:
        return (y**2).sum(1)

    generator = torch.Generator().manual_seed(4)

    def same_noise(arr: np.ndarray, **_: Any) -> np.ndarray:
        noise = 0.05 * (2 * torch.rand((3, 8, 8), generator=generator) - 1)
        return arr + noise.double().flatten().numpy()

    def explain_func(model: nn.Module, inputs: np.ndarray, **_: Any) -> np.ndarray:
        return attribute(torch.as_tensor(inputs))[:, None].numpy()

    metric = quantus.MaxSensitivity(
        nr_samples=3, perturb_func=same_noise, abs=False, normalise=False, disable_warnings=True
    )
    theirs = metric(
        model=module,
        x_batch=x.numpy(),
        y_batch=np.zeros(2, dtype=int),
        explain_func=explain_func,
        channel_first=True,
    )
    ours = max_sensitivity(attribute, x, attribute(x), radius=0.05, samples=3, seed=4)
    torch.testing.assert_close(ours, torch.tensor(np.array(theirs)), rtol=1e-6, atol=0)


def test_sensitivity_refuses_what_moves_nothing() -> None:
    x = torch.zeros(1, 1, 2, 2)
    for options in ({"radius": 0.0}, {"samples": 0}):
        with pytest.raises(SettingsError, match="both must be positive"):
            max_sensitivity(lambda y: y[:, 0], x, x[:, 0], **options)
    with pytest.raises(InputError, match="2 maps for 1 samples"):
        max_sensitivity(lambda y: y[:, 0].abs().repeat(2, 1, 1), x, x[:, 0])
