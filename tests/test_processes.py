"""Threads, forked and spawned processes, and all that a library must leave as it found it."""

from __future__ import annotations

import json
import multiprocessing  # noqa: F401  # for the script below
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings, explain

PRESETS = [Settings.paper(tau=0.0), Settings.contrast(), Settings.plain()]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3),
        nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


def photos(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1 + i % 3, 3, 64, 64, generator=generator) for i in range(count)]


@pytest.mark.parametrize("settings", PRESETS, ids=lambda s: s.preset)
def test_one_explainer_in_sixteen_threads(settings: Settings) -> None:
    images = photos(48)
    fbi = ForwardBackward(network(), images[0], settings)
    serial = [fbi(x, 1) for x in images]
    with ThreadPoolExecutor(16) as pool:
        threaded = list(pool.map(lambda x: fbi(x, 1), images))
    for (values, logits), (expected, expected_logits) in zip(threaded, serial, strict=True):
        assert torch.equal(values, expected)
        assert torch.equal(logits, expected_logits)


def answer(x: Tensor, expected: Tensor) -> bool:
    return torch.equal(explain(network(), x).values, expected)


# PyTorch on two threads is what a forked process waits for; pytest itself stays on one.
IN_A_PROCESS = """
import sys, warnings
sys.path[:0] = {paths!r}
import torch
from test_processes import answer, explain, multiprocessing, network, photos

if __name__ == "__main__":
    torch.set_num_threads(2)
    (x,) = photos(1)
    expected = explain(network(), x).values
    for method, count in (("fork", 2), ("spawn", 1)):  # who is spawned imports all anew
        if method in multiprocessing.get_all_start_methods():
            with multiprocessing.get_context(method).Pool(count) as pool:
                assert pool.starmap_async(answer, [(x, expected)] * 4).get(300) == [True] * 4
    assert torch.get_num_threads() == 2
"""


def test_other_processes_give_the_same_answer(tmp_path: Any) -> None:
    paths = [os.path.dirname(__file__), *filter(None, sys.path)]  # noqa: PTH120
    script = tmp_path / "main.py"
    script.write_text(IN_A_PROCESS.format(paths=paths))
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr


def test_explanations_travel_between_processes() -> None:
    (x,) = photos(1)
    explanation = explain(network(), x)
    assert torch.equal(pickle.loads(pickle.dumps(explanation)).values, explanation.values)


STATE = """
import gc, json, locale, logging, os, random, signal, sys, threading, warnings
import numpy, torch, matplotlib
import sympy  # which torch.export loads; it adds a filter for its own deprecation warnings
from PIL import Image, ImageFile

def state():
    return {
        "threads of PyTorch": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "grad mode": [torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "denormals": float(torch.tensor(1e-40) * 1.0) > 0,
        "autocast": [torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()],
        "random numbers": [
            hash(str(random.getstate())), str(numpy.random.get_state()[1].tolist()),
            torch.get_rng_state().tolist(),
        ],
        "warnings": list(map(str, warnings.filters)),
        "error state of NumPy": numpy.geterr(),
        "logging": [logging.root.level, len(logging.root.handlers), logging.root.disabled],
        "filters of loggers": [
            [name, len(logger.filters)] for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and logger.filters
        ],
        "Matplotlib": [sorted(map(str, matplotlib.rcParams.items())), "pyplot" in sys.modules],
        "Pillow": [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES],
        "environment": {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"},
        "folder": os.getcwd(),
        "search path": sys.path[:],
        "streams": [id(sys.stdin), id(sys.stdout), id(sys.stderr)],
        "hooks": [str(sys.excepthook), str(sys.displayhook)],
        "recursion": sys.getrecursionlimit(),
        "signals": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "locale": locale.setlocale(locale.LC_ALL),
        "threads": [thread.name for thread in threading.enumerate()],
        "garbage collection": [gc.isenabled(), gc.get_threshold()],
    }
"""

WORK = """
def listed(value):
    if isinstance(value, dict):
        return value.items()
    return value if isinstance(value, list) else [value]

before = state()
import torchfbi
after_import = state()
from pathlib import Path
from hostile import networks, pictures, programs
folder = Path(sys.argv[1])
photo = folder / "a.png"
photo.write_bytes(pictures.encoded("PNG"))
model = torchfbi.load("digits")
explanation = torchfbi.explain(model, photo)
torchfbi.Explanation.load(explanation.save(folder / "a.npz")).plot()
torchfbi.ForwardBackward(model.module, torch.zeros(1, 1, 28, 28)).flow(torch.zeros(1, 1, 28, 28))
torchfbi.load(str(networks.honest(folder)))
honest = state()
with torch.random.fork_rng():  # for whoever makes the program
    program = programs.written(folder, {{}})
torchfbi.load(str(program))
for broken in (lambda: torchfbi.load("nothing"), lambda: torchfbi.explain(model, b"nothing"),
               lambda: torchfbi.explain(model.module.train(), torch.zeros(1, 1, 28, 28))):
    try:
        broken()
    except torchfbi.TorchFBIError:
        continue
    raise SystemExit("no error")
for name, after in (("import", after_import), ("work", honest), ("refusals", state())):
    for key, value in before.items():
        if after[key] != value:
            differ = set(map(str, listed(value))) ^ set(map(str, listed(after[key])))
            print(f"{{name}} changed {{key}}: {{sorted(differ)}}")
"""


def test_no_global_state_is_changed(tmp_path: Any) -> None:
    """But for a variable of the environment, which torch.export itself sets."""
    paths = [os.path.dirname(__file__), *filter(None, sys.path)]  # noqa: PTH120
    code = f"import sys\nsys.path[:0] = {json.dumps(paths)}\n{STATE}{WORK.format()}"
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
