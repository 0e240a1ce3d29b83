"""Open every hostile file in a process of its own: ``python -m hostile [--json] [PART...]``,
where the parts of names choose among them."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

from hostile import CASES, Case, Outcome, networks
from hostile.case import TRACE
from torchfbi import load
from torchfbi.errors import ModelError

MEMORY, SECONDS = 2 * 2**30, 30
"""What opening one may take: bytes above what the process has, and seconds of the processor."""

LARGE = ("onnx", "keras")
"""Files whose libraries are large."""


def attempt(case: Case) -> Outcome:
    """Make the file here, and open it in a forked process that cannot take more than allowed."""
    with tempfile.TemporaryDirectory() as folder:
        place = case.make(Path(folder))
        reading, writing = os.pipe()
        before = _pages(1)
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            os.write(writing, json.dumps(_open(case, place)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = pipe.read()
        _, status, used = os.wait4(child, 0)
        seconds = time.monotonic() - start
        error, message = json.loads(answer) if answer else (f"killed by signal {status & 127}", "")
        if (Path(folder) / TRACE).exists():
            error, message = "code was executed", message
        return Outcome(error, message, seconds, max(0, used.ru_maxrss * 1024 - before) / 2**20)


def _pages(column: int) -> int:
    """Bytes of this process: all that is mapped (0), or what is in memory (1)."""
    pages = int(Path("/proc/self/statm").read_text().split()[column])
    return pages * resource.getpagesize()


@functools.cache
def warm_up(suffix: str) -> None:
    """Import here, once, what opening such files would import in each process anew."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ModelError):
        good = Path(folder, f"a.{suffix}")
        good.write_bytes(b"")
        if suffix == "onnx":
            networks.honest(Path(folder))
        load(str(good))
    gc.freeze()  # so that no process goes through, and so copies, all that this one holds


def _open(case: Case, place: object) -> tuple[str, str]:
    limit = _pages(0) + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    signal.alarm(2 * SECONDS)  # a hang takes no processor
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        case.open(place)
    except BaseException as error:  # whatever it is, it is what we want to know
        return type(error).__name__, str(error)
    return "", ""


def main(arguments: list[str]) -> None:
    """Print a table, or JSON lines."""
    torch.set_num_threads(1)
    plain = "--json" in arguments
    parts = [part for part in arguments if part != "--json"]
    wanted = [case for name, case in CASES.items() if all(part in name for part in parts)]
    gc.freeze()
    # What a fork costs grows with what was imported: others first.
    for case in sorted(wanted, key=lambda case: case.kind.lower() in LARGE):
        if case.kind.lower() in LARGE:
            warm_up(case.kind.lower())
        outcome = attempt(case)
        if plain:
            print(json.dumps([case.name, *outcome]), flush=True)
        else:
            found = f"{outcome.error or 'opened'}: {outcome.message}"
            cost = f"{outcome.seconds:5.1f} s {outcome.memory:5.0f} MiB"
            print(f"{cost}  {case.name:42}  {found[:150]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
