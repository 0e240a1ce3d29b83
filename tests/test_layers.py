"""The house keeps its shape: imports point down, and what is public is there."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_point_down_the_layers() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_public_names_exist_and_are_typed() -> None:
    import torchfbi

    assert all(hasattr(torchfbi, name) for name in torchfbi.__all__)
    assert (ROOT / "src" / "torchfbi" / "py.typed").exists()
