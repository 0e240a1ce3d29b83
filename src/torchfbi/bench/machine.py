"""On what a measurement was made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from torchfbi.system.versions import versions


def machine() -> dict[str, Any]:
    """Processor, cores, threads, load and versions, as plain JSON values.

    ``instructions`` are the widest ones of the processor that PyTorch's own kernels use.

    ``load`` is how many processes wanted a core in the last minute, before the measurement: on a
    quiet machine it is well below 1. None where the system does not tell.
    """
    found = versions()
    for package in ("torchvision", "timm", "captum"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": found,
    }


def processor(facts: dict[str, Any]) -> str:
    """The processor of a ``machine``, and how much of it was used, for a figure's title."""
    used = f"{facts['threads']} of {facts['cores']} cores"
    return f"{facts['cpu']} ({facts['instructions']}), {used}"


def _cpu() -> str:
    """The processor's name."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
