"""The tau that fits a network: where the one asked for selects nothing, the answer offers it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings, explain
from torchfbi.explanation.fitting import _falling, fitting_tau


def network(scale: float) -> nn.Module:
    """One pixel of 3: a = scale * 3, z = a, so the one contribution is z * a = (3 scale)^2."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1))
    with torch.no_grad():
        net[0].weight.fill_(scale)
        net[3].weight.fill_(1.0)
        net[3].bias.zero_()
    return net.eval().requires_grad_(False)


X = torch.full((1, 1, 1, 1), 3.0)


def test_the_series_below_a_number() -> None:
    assert list(_falling(10.0))[:5] == [5.0, 2.0, 1.0, 0.5, 0.2]
    assert list(_falling(0.3))[:3] == [0.2, 0.1, 0.05]
    assert all(a > b for a, b in zip(_falling(7.0), list(_falling(7.0))[1:], strict=False))


def test_the_largest_round_tau_that_is_exceeded() -> None:
    # The paper's seed of one logit z is z: z a = 9 scale^2; scale 0.2 makes it 0.36.
    walker = ForwardBackward(network(0.2), X, Settings.paper())
    assert not walker(X, 0)[0].any()
    assert fitting_tau(walker, X, 0) == 0.2
    assert ForwardBackward(network(0.2), X, Settings.paper(tau=0.2))(X, 0)[0].any()
    assert not ForwardBackward(network(0.2), X, Settings.paper(tau=0.5))(X, 0)[0].any()


def test_the_explanation_says_it() -> None:
    explanation = explain(network(0.2), X, 0, "paper")
    assert explanation.fitting_tau == 0.2
    said = "empty support: nothing exceeds tau = 10 here; tau = 0.2 would fit"
    assert explanation.emptiness() == said
    assert said in repr(explanation)
    assert explain(network(2.0), X, 0, "paper").fitting_tau is None
    assert explain(network(2.0), X, 0, "paper").emptiness() is None


def test_where_nothing_speaks_for_the_class_no_tau_fits() -> None:
    def against(logits: Tensor) -> Tensor:
        return torch.full_like(logits, -1.0)

    explanation = explain(network(0.2), X, against, "paper")
    assert explanation.fitting_tau is None
    assert explanation.emptiness() == "empty support: nothing exceeds tau = 10 here"
    assert explain(network(0.2), X, against).emptiness() == "empty support: nothing speaks for it"
