"""Every hostile file meets its refusal, in little time and memory, and nothing of it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hostile import CASES, Outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "hostile", "--json"],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
        text=True,
    )
    rows = map(json.loads, run.stdout.splitlines())
    return {name: Outcome(*outcome) for name, *outcome in rows}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_or_harmless(name: str, outcomes: dict[str, Outcome]) -> None:
    case, outcome = CASES[name], outcomes[name]
    assert outcome.error == ("" if case.refusal is None else case.refusal.__name__), outcome.message
    assert re.search(case.message, outcome.message)
    assert outcome.memory < 1024, "MiB, where half of the limit would do"
