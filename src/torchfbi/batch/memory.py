"""How many images go through the network together."""

from __future__ import annotations

import contextlib
from math import prod
from pathlib import Path

import torch

from torchfbi.method.graph import Graph

MOST = {"cpu": 8, "cuda": 64}
"""On the CPU larger batches are no faster: their maps do not stay in its caches."""

SHARE = 0.5
"""Of the free memory that a batch may take."""


def batch_size(graph: Graph, device: str) -> int:
    """The largest power of two that fits into half of the free memory, and is of use.

    A batch is taken to need all of the network's intermediate values twice: the forward ones, and
    the signals on the way back. In truth the forward pass lets go of what the walk does not read.

    Args:
        graph: the network.
        device: where it runs.
    """
    if graph.batch is not None:
        return graph.batch
    most, free = MOST.get(device.partition(":")[0], 8), free_bytes(device)
    if free is None:
        return most
    fitting = max(1, int(SHARE * free / (2 * bytes_per_image(graph))))
    return min(most, 1 << (fitting.bit_length() - 1))


def bytes_per_image(graph: Graph) -> int:
    """Of all intermediate values in the forward pass of one image."""
    total = 0
    for node in (graph.image, *graph.nodes):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            total += prod(map(int, value.shape[1:])) * value.element_size()
    return max(1, total)


def free_bytes(device: str) -> int | None:
    """The memory that could be had now; None where the system does not tell."""
    if device.startswith("cuda"):
        if not torch.cuda.is_available():  # here, but perhaps on the nodes of a cluster
            return None
        return int(torch.cuda.mem_get_info(device)[0])
    available = _number(Path("/proc/meminfo"), "MemAvailable:", 1024)
    free = [n for n in (available, _left_in_group()) if n is not None]
    return min(free) if free else None


def _left_in_group(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take; what it caches of files can be had back."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    cached = _number(folder / "memory.stat", "inactive_file", 1) or 0
    return None if limit == "max" else max(0, int(limit) - used + cached)


def _number(file: Path, name: str, unit: int) -> int | None:
    """The number behind a name in one of the kernel's files."""
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return unit * int(line.split()[1])
    return None
