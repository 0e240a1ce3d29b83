"""Rows as explanations again, and a figure of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchfbi import atomic
from torchfbi.batch.evidence import seen, support_map
from torchfbi.batch.store import Store, storing
from torchfbi.capture.capture import capture
from torchfbi.explanation.explanation import Explanation
from torchfbi.method.settings import Settings
from torchfbi.models import Model
from torchfbi.models.images import Photo
from torchfbi.models.preprocess import Region


def explanation(row: dict[str, Any], model: Model, settings: Settings) -> Explanation:
    """The explanation that a row holds; its photo is what the network saw, as a JPEG kept it.

    Args:
        row: one without an error.
        model, settings: what made it.
    """
    height, width = support_map(row).shape
    values = np.asarray(row["values"], np.float32) * np.float32(row["scale"])
    return Explanation(
        values=torch.from_numpy(values.reshape(1, -1, height, width)),
        logits=torch.tensor([row["logits"]]),
        target=torch.tensor([row["target"]]),
        layers=(),
        settings=settings,
        labels=tuple(model.labels),
        photos=(Photo(seen(row), row["path"]),),
        regions=(Region(0, 0, width, height),),
        model=model.name,
        versions=row["versions"],
        head=capture(model.module, model.blank()).head,  # captured once, and kept with the module
    )


def draw(store: Store, model: Model, settings: Settings) -> Iterator[Path]:
    """Draw what is not drawn yet into ``figures/``, from the rows alone.

    Yields:
        The path of each figure: the image's number in the input, and its name.

    Raises:
        StorageError: they cannot be written.
    """
    from torchfbi import plot  # Matplotlib, which no process that makes rows needs

    for row in store.every():
        if row["error"] is not None:
            continue
        name = re.sub(r"[^\w]+", "-", Path(row["path"]).stem).strip("-")[:60]
        figure = store.folder / "figures" / f"{row['index']:06}-{name}.png"
        if not figure.exists():
            drawn = plot.encode(explanation(row, model, settings).plot(), "png", 100)
            with storing(store.folder):
                atomic.write(figure, drawn)
        yield figure
