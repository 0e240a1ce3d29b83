"""Other batch sizes and thread counts: the tolerance that docs/reliability.md promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from photos import SHIPPED
from torchfbi import ForwardBackward, Model, Photo, Settings
from torchfbi.method.evidence import support_of_values

PRESETS = {"contrast": Settings.contrast(), "paper": Settings.paper(tau=0.0)}


Found = dict[str, tuple[Tensor, Tensor]]
"""Values and logits by preset."""


def explained(model: Model, batch: int, photos: int = 4) -> Found:
    """The first photos, in batches of that many."""
    x = torch.stack([model.preprocess(Photo.read(path))[0] for path in SHIPPED[:photos]])
    found = {}
    for name, settings in PRESETS.items():
        fbi = ForwardBackward(model.module, x[:1], settings)
        values, logits = zip(*(fbi(part) for part in x.split(batch)), strict=True)
        found[name] = torch.cat(values), torch.cat(logits)
    return found


@pytest.fixture(scope="module")
def one_by_one(lite: Model) -> Found:
    return explained(lite, 1)


def assert_within_the_tolerance(found: Found, expected: Found) -> None:
    for name, settings in PRESETS.items():
        values = found[name][0]
        right = expected[name][0][: len(values)]
        support, wanted = (support_of_values(v, settings) for v in (values, right))
        assert (support != wanted).sum() <= 1e-3 * wanted.sum()
        largest = right.abs().flatten(1).amax(1)
        assert ((values - right).abs().flatten(1).amax(1) <= 0.01 * largest).all()


def test_in_one_batch(lite: Model, one_by_one: Found) -> None:
    assert_within_the_tolerance(explained(lite, 4), one_by_one)


ELSEWHERE = """
import sys
sys.path.insert(0, {tests!r})
import torch
from test_determinism import explained
from torchfbi import load

lite = load("efficientnet-lite0")
torch.set_num_threads(1)
again = explained(lite, 1, 1)
torch.set_num_threads(2)
torch.save((again, explained(lite, 1, 2)), {path!r})
"""


def test_the_same_bytes_again_and_on_two_threads(one_by_one: Found, tmp_path: Path) -> None:
    """In a process of its own: threads that were once started cannot be forked later."""
    path = str(tmp_path / "values.pt")
    script = ELSEWHERE.format(tests=str(Path(__file__).parent), path=path)
    # Passive: a thread that waits leaves its core to whoever shares it.
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=600)
    again, on_two_threads = torch.load(path)
    for name, tensors in again.items():
        for one, other in zip(tensors, one_by_one[name], strict=True):
            assert torch.equal(one, other[:1])
    assert_within_the_tolerance(on_two_threads, one_by_one)
