"""Other batch sizes and thread counts: the tolerance that docs/reliability.md promises."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from photos import SHIPPED
from torchfbi import ForwardBackward, Model, Photo, Settings, load
from torchfbi.method.evidence import support_of_values

PRESETS = {"contrast": Settings.contrast(), "paper": Settings.paper(tau=0.0)}


lite = functools.cache(functools.partial(load, "efficientnet-lite0"))


def explained(
    settings: Settings, batch: int, model: Model | None = None, photos: int = 8
) -> tuple[Tensor, Tensor]:
    """The first of eight photos, in batches of that many."""
    model = model or lite()
    x = torch.stack([model.preprocess(Photo.read(path))[0] for path in SHIPPED])
    x = torch.cat([x, x[:1].flip(3)])[:photos]
    fbi = ForwardBackward(model.module, x[:1], settings)
    parts = [fbi(part) for part in x.split(batch)]
    return torch.cat([values for values, _ in parts]), torch.cat([logits for _, logits in parts])


@pytest.fixture(scope="module", params=PRESETS)
def preset(request: pytest.FixtureRequest) -> tuple[str, Tensor, Tensor]:
    return request.param, *explained(PRESETS[request.param], 1)


def assert_within_the_tolerance(name: str, values: Tensor, expected: Tensor) -> None:
    support, wanted = (support_of_values(v, PRESETS[name]) for v in (values, expected))
    assert (support != wanted).sum() <= 1e-3 * wanted.sum()
    largest = expected.abs().flatten(1).amax(1)
    assert ((values - expected).abs().flatten(1).amax(1) <= 0.01 * largest).all()


def test_the_same_bytes_again(preset: tuple[str, Tensor, Tensor]) -> None:
    name, values, logits = preset
    again = explained(PRESETS[name], 1, load("efficientnet-lite0"), 2)  # captured anew
    assert torch.equal(again[0], values[:2])
    assert torch.equal(again[1], logits[:2])


def test_in_batches_of_eight(preset: tuple[str, Tensor, Tensor]) -> None:
    name, expected, _ = preset
    assert_within_the_tolerance(name, explained(PRESETS[name], 8)[0], expected)


ON_TWO_THREADS = """
import sys
sys.path.insert(0, {tests!r})
import torch
from test_determinism import PRESETS, explained

torch.set_num_threads(2)
found = {{name: explained(settings, 1, photos=3)[0] for name, settings in PRESETS.items()}}
torch.save(found, {path!r})
"""


@pytest.fixture(scope="module")
def on_two_threads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """In a process of its own: threads that were once started cannot be forked later."""
    path = str(tmp_path_factory.mktemp("threads") / "values.pt")
    script = ON_TWO_THREADS.format(tests=str(Path(__file__).parent), path=path)
    # Passive: a thread that waits leaves its core to whoever shares it.
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=600)
    return torch.load(path)


def test_on_two_threads(
    preset: tuple[str, Tensor, Tensor], on_two_threads: dict[str, Tensor]
) -> None:
    name, expected, _ = preset
    assert_within_the_tolerance(name, on_two_threads[name], expected[:3])
