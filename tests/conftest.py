"""What all tests share: the same examples and random numbers in every run, on one thread."""

import contextlib
import gc
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from browser import browser  # noqa: F401  # a fixture
from torchfbi.cli.main import main
from torchfbi.errors import ModelError
from torchfbi.models import Model, embedded
from torchfbi.models.torchvision import import_torchvision
from trained import NETWORKS, trained

settings.register_profile(
    "proofs",
    max_examples=40,  # the same ones in every run
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("proofs")

# On busy cores PyTorch's threads wait for each other at every group of a depthwise convolution:
# one network took minutes instead of a second.
torch.set_num_threads(1)

# Before Quantus does, which cannot where the compiled operators do not fit.
with contextlib.suppress(ModelError):
    import_torchvision()


def pytest_collection_finish() -> None:
    """What was imported stays: going through it again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def lite() -> Model:
    """For tests that do not change it."""
    return trained("efficientnet-lite0")


@pytest.fixture
def shared_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that change no network."""
    for name in NETWORKS:

        def load(pretrained: bool = True, name: str = name) -> Model:
            return trained(name) if pretrained else NETWORKS[name](False)

        monkeypatch.setitem(embedded.MODELS, name, load)


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shared_networks: None,
):
    """The command line, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Result(stop.value.code, captured.out, captured.err)

    return call
