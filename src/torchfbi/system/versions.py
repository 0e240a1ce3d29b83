"""The versions that an answer depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch


def versions() -> dict[str, str]:
    """The versions of torchfbi, torch and numpy that are running."""
    try:
        own = version("torchfbi")
    except PackageNotFoundError:
        own = "source"
    return {"torchfbi": own, "torch": torch.__version__, "numpy": np.__version__}
