"""The house keeps its shape: imports point down, files stay short."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))


def test_imports_point_down_the_layers() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_module_is_longer_than_300_lines(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 300


def test_the_public_names_exist_and_are_typed() -> None:
    import torchfbi

    assert all(hasattr(torchfbi, name) for name in torchfbi.__all__)
    assert (ROOT / "src" / "torchfbi" / "py.typed").exists()
