"""What a measure asks of other networks and images, on networks that answer by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchfbi import metrics
from torchfbi.evaluate import measures
from torchfbi.evaluate.measures import ROUNDS, STAGES


def context(module: nn.Module, x: Tensor, explain: Any) -> Any:
    """What a measure reads, with an explainer of the test's own."""
    subject = SimpleNamespace(module=module, seed=0)
    batch = SimpleNamespace(x=x, target=torch.zeros(len(x), dtype=torch.int64))
    return SimpleNamespace(subject=subject, batch=batch, explain=explain)


def test_the_cascade_is_the_mean_over_evenly_spaced_stages() -> None:
    layers = nn.Sequential(*(nn.Linear(3, 3) for _ in range(9)))
    base, asked = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0)), list[int]()

    def explain(module: nn.Sequential) -> Tensor:
        """Turned round once all layers are random."""
        pairs = zip(module, layers, strict=True)
        changed = sum(not torch.equal(a.weight, b.weight) for a, b in pairs)  # type: ignore[arg-type]
        asked.append(changed)
        return -base if changed == 9 else base

    c = context(layers, torch.zeros(2, 3), explain)
    c.scores = base
    assert measures.cascade(c).tolist() == pytest.approx([(STAGES - 2) / STAGES] * 2)
    assert asked == [1, 3, 5, 7, 9]


def test_sensitivity_is_that_of_the_map_of_what_speaks_for_the_class() -> None:
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))

    def explain(x: Tensor) -> Tensor:
        return x.sum(1)

    c = context(nn.Identity(), x, explain)
    c.maps = explain(x).relu()
    expected = metrics.max_sensitivity(lambda x: x.sum(1).clamp(min=0), x, c.maps, seed=0)
    assert torch.equal(measures.sensitivity(c), expected) and (expected > 0).all()


def test_the_cost_is_of_the_first_image_alone() -> None:
    seen = list[tuple[int, ...]]()

    def explain(target: Tensor, x: Tensor) -> None:
        seen.append(tuple(x.shape))

    cost = measures.cost(context(nn.Identity(), torch.zeros(3, 1, 2, 2), explain))
    assert cost[0] > 0 and cost[1:].isnan().all()
    assert len(seen) >= ROUNDS and set(seen) == {(1, 1, 2, 2)}
