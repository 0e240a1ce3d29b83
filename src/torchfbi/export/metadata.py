"""What a file tells about itself: everything one needs to use it without torchfbi."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.export.explainer import TOP_CLASS
from torchfbi.models import Model
from torchfbi.system.versions import versions

SCHEMA = 1


def describe(
    model: Model | nn.Module,
    walker: ForwardBackward,
    batch: int | None,
    others: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Labels, preprocessing, settings and versions as plain JSON values.

    Labels and preprocessing are None for a bare module, and so is a batch that is free. What nobody
    said about the preprocessing stands in ``assumed``, in a sentence.
    """
    settings = walker.settings
    name, preprocess, labels, assumed = type(model).__name__, None, None, list[str]()
    if isinstance(model, Model):
        assumed = list(model.warnings())
        name, preprocess, labels = model.name, asdict(model.preprocess), list(model.labels)
    return {
        "schema": SCHEMA,
        "model": name,
        "settings": settings.to_dict(),
        "inputs": {
            "image": list(walker.graph.image.meta["val"].shape[1:]),
            "target": {"top class": TOP_CLASS},
            "k": None if settings.k == 1 else settings.k,
            "tau": settings.tau,
            **{name: list(tensor.shape[1:]) for name, tensor in others.items()},
        },
        "batch": batch,
        "preprocess": preprocess,
        "assumed": assumed,
        "labels": labels,
        "versions": versions(),
    }
