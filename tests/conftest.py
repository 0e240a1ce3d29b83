"""What all tests share: the same examples and random numbers in every run, on one thread."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from browser import browser  # noqa: F401  # a fixture
from torchfbi.cli.main import main

settings.register_profile(
    "proofs",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("proofs")

# On busy cores PyTorch's threads wait for each other at every group of a depthwise convolution:
# one network took minutes instead of a second.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
