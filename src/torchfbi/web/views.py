"""Answers as plain JSON values, pictures inside. What they look like is the page's matter."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import numpy as np

from torchfbi import plot
from torchfbi.evaluate.compare import Comparison
from torchfbi.explanation.explanation import Explanation
from torchfbi.method.evidence import density
from torchfbi.models import Model
from torchfbi.models.images import Array, Photo
from torchfbi.models.model import guessed
from torchfbi.models.preprocess import Region
from torchfbi.plot.flow import ROWS, photo_of, spatial_flow, station_of, strongest_maps
from torchfbi.plot.sweep import tau_name
from torchfbi.sweep import Sweep
from torchfbi.verification.words import gist
from torchfbi.web.desk import Answer
from torchfbi.web.pictures import (
    LONGEST,
    forward_uri,
    is_dark,
    outline,
    photo_uri,
    revealed_uri,
    signed_uri,
)
from torchfbi.web.query import changes
from torchfbi.web.snippet import snippet

SMALL = 360
"""The longer side, in pixels, of pictures that stand beside others."""

MAPS = 8
"""How many feature maps are shown of a layer."""

FILES = ("png", "svg", "npz", "json", "py")

UNLIKELY = 0.01
"""Below this probability it is said that the network does not see the class."""


def encode(value: Any) -> bytes:
    """As JSON; what is no text (half a pair of surrogates in a name) stays escaped."""
    return json.dumps(value).encode()


def encoded(view: Callable[..., Any]) -> Callable[..., bytes]:
    """A view as JSON, made where the view is: by who works, not by the thread that serves."""
    return functools.partial(_encode, view)


def _encode(view: Callable[..., Any], *shown: Any) -> bytes:
    return encode(view(*shown))


def photo_view(token: str, photo: Photo) -> dict[str, Any]:
    """A photo that was received."""
    height, width = photo.shape
    shown = {"name": photo.name, "width": width, "height": height}
    return {"photo": token, **shown, "preview": photo_uri(photo.pixels)}


def network_view(model: Model) -> dict[str, Any]:
    """A network that was received."""
    taken = model.preprocess
    return {
        "name": model.name,
        "classes": len(model.labels),
        "assumed": list(model.warnings()),
        "mean": list(taken.mean),
        "std": list(taken.std),
    }


def labels_view(model: Model) -> list[str]:
    """The names of a network's classes."""
    return list(model.labels)


def explanation_view(answer: Answer) -> dict[str, Any]:
    """An explanation: what it is about, its picture, and the addresses of its files."""
    explanation, asked = answer.explanation, answer.question
    manifest = explanation.manifest()
    sample = manifest["samples"][0]
    rows = explanation.top(5)
    if answer.target not in [number for number, _, _ in rows]:
        probability = explanation.probabilities[0, answer.target].item()
        rows.append((answer.target, explanation.label(answer.target), probability))
    address = {"model": asked.model, "target": answer.target, "preset": asked.settings.preset}
    if changed := changes(asked.settings):
        address["settings"] = json.dumps(changed)
    question = urlencode(address)
    base = f"/photo/{asked.token}/explanation"
    return {
        "model": manifest["model"],
        "photo": sample["photo"],
        "target": answer.target,
        "label": explanation.label(answer.target),
        "title": sample["title"],
        "top": [dict(zip(("class", "label", "probability"), row, strict=True)) for row in rows],
        "density": sample["density"],
        "region": sample["region"],
        "assumed": list(guessed(explanation.preprocess, explanation.assumed)),
        "notes": notes(answer),
        "settings": manifest["settings"],
        "versions": manifest["versions"],
        "stem": answer.stem,
        "program": snippet(answer),
        "files": {suffix: f"{base}.{suffix}?{question}" for suffix in FILES},
        "question": question,
        "picture": revealed_uri(
            explanation.photos[0].pixels, _evidence(explanation), LONGEST, explanation.regions[0]
        ),
    }


def verdict_view(answer: Answer) -> dict[str, Any]:
    """Whether an explanation holds, in one sentence and in all, and what to outline.

    Args:
        answer: its explanation was made with ``verify=True``.
    """
    verdict = answer.explanation.verdicts[0]
    return {
        "ruling": verdict.ruling,
        "gist": gist(verdict),
        "sentence": verdict.sentence,
        "checks": verdict.checks,
        "size": list(answer.explanation.evidence.shape[1:]),
        "outlines": {
            name: outline(mask.cpu().numpy())
            for name, mask in verdict.masks().items()
            if name in ("sufficient", "second") and not mask.all()
        },
    }


def named_file(answer: Answer, kind: str) -> bytes:
    """What its name begins with, in a line, and the file."""
    return answer.stem.encode() + b"\n" + file(answer, kind)


def file(answer: Answer, kind: str) -> bytes:
    """An answer as a file: the figure (png, svg), the arrays (npz), the manifest (json), or the
    program that computes it (py)."""
    explanation = answer.explanation
    if kind in plot.FORMATS:
        return plot.encode(explanation.plot(), kind)
    if kind == "npz":
        return explanation.to_npz()
    if kind == "json":
        return json.dumps(explanation.manifest(), indent=1).encode()
    return snippet(answer).encode()


def notes(answer: Answer) -> list[str]:
    """What has to be said beside the picture, in sentences."""
    explanation, asked = answer.explanation, answer.question
    said = []
    if reason := explanation.emptiness():
        said.append(f"{reason[0].upper()}{reason[1:]}.")
    elif asked.fitted_from is not None:
        said.append(
            f"Nothing exceeds τ = {asked.fitted_from:g} in this network: τ = "
            f"{asked.settings.tau:g} was taken, which fits it."
        )
    if is_dark(explanation.photos[0].pixels):
        said.append("The photo is dark: it is brightened where the explanation is drawn on it.")
    probability = explanation.probabilities[0, answer.target].item()
    if probability < UNLIKELY:
        said.append(
            f"The network does not see this class here ({probability:.1%}): shown is the little "
            "that would speak for it."
        )
    return said


def flow_view(answer: Answer) -> dict[str, Any]:
    """Every layer from the top feature map to the pixels.

    Args:
        answer: its explanation was made with ``record=True``.
    """
    explanation = answer.explanation
    photo = (photo_of(explanation, 0) * 255).round().astype(np.uint8)
    layers = []
    for found in spatial_flow(explanation, 0):
        station, pixels = station_of(found, 0), found.layer == "image"
        maps = [] if pixels else strongest_maps(found, 0, MAPS)
        layers.append(
            {
                "name": station.name,
                "size": station.size,
                "maps": station.maps,
                "density": station.density,
                "forward": None if pixels else forward_uri(station.forward),
                "forward_range": _range(station.forward),
                "evidence": signed_uri(station.evidence),
                "evidence_range": _range(station.evidence),
                "support": revealed_uri(photo, station.evidence, SMALL),
                "strongest": [
                    {"number": m.number, "share": m.share, "picture": forward_uri(m.activation)}
                    for m in maps
                ],
            }
        )
    return {
        "title": explanation.title(),
        "photo": photo_uri(photo),
        "rows": [{"name": name, "meaning": " ".join(said.split())} for name, said in ROWS],
        "layers": layers,
    }


def comparison_view(comparison: Comparison) -> dict[str, Any]:
    """What one method says."""
    row, method = comparison.rows[0], comparison.methods[0]
    cell = row.cells[0]
    note = "" if cell.tau is None else f"Nothing exceeds its own τ here: τ = {cell.tau:g}."
    found = {"name": method.name, "source": method.source, "error": cell.error, "note": note}
    if cell.map is None:
        return {**found, "picture": None, "support": None}
    picture = revealed_uri(row.picture, cell.map.numpy(), SMALL)
    return {**found, "picture": picture, "support": density(cell.map[None]).item()}


def sweep_view(row: Sweep) -> dict[str, Any]:
    """One row of the grid of k and tau."""
    cells = [
        {
            "tau": tau_name(row.taus[column]),
            "picture": revealed_uri(seen(cell), _evidence(cell), SMALL),
            "density": row.density[0, column].item(),
            "kept": row.kept[0, column].item(),
            "removed": row.removed[0, column].item(),
        }
        for column, cell in enumerate(row.explanations[0])
    ]
    return {
        "k": row.ks[0],
        "taus": ", ".join("none" if tau is None else f"{tau:g}" for tau in row.taus),
        "title": row.explanations[0][0].title(),
        "probability": row.probability,
        "blurred": row.blurred,
        "cells": cells,
    }


def seen(explanation: Explanation) -> Array:
    """What the network saw of the photo, uint8 (H, W, 3)."""
    left, top, right, bottom = map(round, Region(*explanation.regions[0]))
    return explanation.photos[0].pixels[top : max(bottom, top + 1), left : max(right, left + 1)]


def _evidence(explanation: Explanation) -> Array:
    return explanation.evidence[0].detach().float().cpu().numpy()


def _range(values: Array) -> str:
    low, high = (f"{value:.2g}".replace("-", "−") for value in (values.min(), values.max()))
    return f"{low} to {high}" if low != high else f"{low} everywhere"
