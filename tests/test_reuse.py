"""A remembered forward pass gives the same explanation, and is not run again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from torchfbi.api import explain
from torchfbi.capture import own
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.explanation.reuse import Forwards
from torchfbi.method.settings import Settings


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every forward pass."""
    counted: list[int] = []
    own = ForwardBackward._run

    def run(self: ForwardBackward, x: torch.Tensor, watched: bool = True) -> Any:
        counted.append(1)
        return own(self, x, watched)

    monkeypatch.setattr(ForwardBackward, "_run", run)
    return counted


def network() -> nn.Module:
    layers = (
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("preset", ["contrast", "paper", "plain"])
def test_class_k_and_tau_reuse_it(preset: str, runs: list[int]) -> None:
    module, x, forwards = network(), torch.rand(2, 3, 16, 16), Forwards()
    settings = Settings.from_preset(preset, k=0.5, tau=0.001)
    cells = [settings, settings.override(k=0.25), settings.override(tau=0.01)]
    for target in (0, 3, None):
        for cell in cells:
            fresh = explain(module, x, target, cell)
            before = len(runs)
            # The image is equal, not the same: a photo is prepared anew each time.
            again = explain(module, x.clone(), target, cell, forwards=forwards, record=True)
            assert len(runs) - before == (target == 0 and cell is settings)
            assert torch.equal(again.values, fresh.values)
            assert torch.equal(again.logits, fresh.logits)
            for one, other in zip(again.layers, fresh.layers, strict=True):
                assert torch.equal(one.support, other.support)


def test_a_network_that_stays_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x, asked = network(), torch.rand(1, 3, 16, 16), []
    answer = own.answer
    monkeypatch.setattr(own, "answer", lambda *a: asked.append(1) or answer(*a))
    for stays, count in ((False, 3), (True, 1)):
        forwards = Forwards(stays=stays)
        for target in range(3):
            explain(module, x, target, forwards=forwards)
        assert len(asked) == count
        asked.clear()


def test_what_differs_is_run(runs: list[int]) -> None:
    module, x, forwards = network(), torch.rand(1, 3, 16, 16), Forwards(count=2)
    explain(module, x, 0, forwards=forwards)
    for change in ({"pooling": "winner"}, {"gates": "derivative"}, {"gamma": 0.0}):
        before = len(runs)
        settings = Settings.contrast(**change)
        again = explain(module, x, 0, settings, forwards=forwards)
        assert len(runs) == before + 1
        assert torch.equal(again.values, explain(module, x, 0, settings).values)
    for other, image in ((module, x + 1), (network(), x)):
        before = len(runs)
        explain(other, image, 0, forwards=forwards)
        assert len(runs) == before + 1
    assert len(forwards._passes) == 2
