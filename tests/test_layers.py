"""The house keeps its shape: imports point down, and what is public is there."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_imports_point_down_the_layers() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_map_names_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("| rooms |") : text.index("The method knows")]
    rooms = {p.name for p in (ROOT / "src/torchfbi").iterdir() if p.is_dir() and p.name[0] != "_"}
    named = set(re.findall(r"`(\w+)/`", table))
    assert named == rooms
    files = {p.stem for p in (ROOT / "src/torchfbi").glob("*.py")} - {"__init__", "__main__"}
    assert files <= set(re.findall(r"`(\w+)`", table))


PUBLIC = {
    "torchfbi": "Explanation ForwardBackward Labels LayerFlow LayerSupport Model Photo Preprocess "
    "Settings TorchFBIError Verdict explain load targets verify",
    "torchfbi.targets": "against box overlapping region score",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_what_is_public_is_a_list(module: str) -> None:
    found = importlib.import_module(module)
    assert sorted(found.__all__) == sorted(PUBLIC[module].split())
    assert all(hasattr(found, name) for name in found.__all__)


def test_it_is_typed() -> None:
    assert (ROOT / "src/torchfbi/py.typed").exists()
