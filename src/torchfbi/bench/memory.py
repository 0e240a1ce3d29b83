"""The peak memory of one contender, in a process of its own.

What is measured is physical memory (the resident set) of the whole process. It starts where the
network is loaded, the images are made, and the machinery has been used once on a tiny network, so
that no library's first use counts; what PyTorch's allocator had free then is given back first.
``held`` is what getting ready adds and keeps: for ours the captured graph with its folded
weights. ``peak`` is the highest point during one call, ``held`` included.

On an accelerator it is what PyTorch's allocator there has given out, which needs no process.

On Linux this is VmHWM, set back to the present before each part. Elsewhere it is ru_maxrss, the
highest point since the process began, which cannot be set back: what loading needed on the way
hides as much of the peak.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from torchfbi.bench.cases import Case, Task, build
from torchfbi.bench.contenders import MAKERS
from torchfbi.system import children, forked

_STATUS = Path("/proc/self/status")


class Memory(NamedTuple):
    """Bytes above the loaded network: what getting ready keeps, and the peak of a call."""

    held: int
    peak: int


def in_a_process(case: Case, contender: str, threads: int, timeout: float = 600) -> Memory | None:
    """The memory of one call; None where the process did not live to tell.

    Args:
        case: network and images.
        contender: one of ``contenders.MAKERS``.
        threads: of PyTorch.
        timeout: in seconds.
    """
    processes = children.context(__name__)
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=_work, args=(case, contender, threads, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(timeout) else None
    except EOFError:
        return None
    finally:
        process.kill()
        process.join()


def _work(case: Case, contender: str, threads: int, answer: Connection) -> None:
    forked.unharmed()
    torch.set_num_threads(threads)
    make = MAKERS[contender]
    task = build(case)
    make(tiny(task))()
    answer.send(growth(lambda: make(task)))


def tiny(task: Task) -> Task:
    """A task of the same dtype that takes no memory to speak of."""
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
    module = nn.Sequential(*layers).eval().requires_grad_(False).to(task.x)
    return Task(module, task.x.new_zeros(1, 3, 8, 8), task.target.new_zeros(1))


def growth(make: Callable[[], Callable[[], object]], device: str = "cpu") -> Memory:
    """What the process needs on top of what it needs now, to make a call and to run it once."""
    new_peak, peak_now = (_new_peak, _peak) if device == "cpu" else (_new_peak_there, _peak_there)
    start = new_peak()
    call = make()
    held = new_peak() - start
    result = call()  # it counts until the peak is read
    peak = peak_now() - start
    del result
    return Memory(max(0, held), max(0, peak))


def _new_peak() -> int:
    """Give free memory back and let the peak start anew; where it starts, in bytes."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc's
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _new_peak_there() -> int:
    """The same on the accelerator."""
    gc.collect()
    torch.accelerator.empty_cache()
    torch.accelerator.reset_peak_memory_stats()
    return _peak_there()


def _peak_there() -> int:
    """The most that was in use on the accelerator so far, in bytes."""
    return torch.accelerator.max_memory_allocated()


def _peak() -> int:
    """The highest resident set so far, in bytes."""
    if _STATUS.exists():
        line = next(s for s in _STATUS.read_text().splitlines() if s.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
