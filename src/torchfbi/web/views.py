"""The parts of the page as HTML. The templates escape every name: files and classes have any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from torchfbi.evaluate.compare import Comparison
from torchfbi.explanation import Explanation
from torchfbi.images import Array
from torchfbi.metrics import support_fraction
from torchfbi.plot.flow import ROWS, photo_of, spatial_flow, station_of, strongest_maps
from torchfbi.plot.sweep import threshold_name
from torchfbi.sweep import Sweep
from torchfbi.web.desk import Answer
from torchfbi.web.pictures import forward_uri, heat_uri, photo_uri, signed_uri
from torchfbi.web.snippet import snippet

SMALL = 300
"""The longer side, in pixels, of pictures that stand beside others."""

MAPS = 8
"""How many feature maps are shown of a layer."""

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def render(name: str, **values: Any) -> str:
    """One of the templates, filled in."""
    return _templates.get_template(f"{name}.html").render(**values)


def explanation_view(answer: Answer) -> str:
    """The explanation over the photo, with its legend."""
    explanation = answer.explanation
    photo, region = explanation.photos[0], explanation.regions[0]
    height, width = photo.shape
    heat = explanation.to_heatmap()[0].float().cpu().numpy()
    shape = round(region.bottom - region.top) or 1, round(region.right - region.left) or 1
    box = {
        "left": region.left / width,
        "top": region.top / height,
        "width": (region.right - region.left) / width,
        "height": (region.bottom - region.top) / height,
    }
    return render(
        "explanation",
        title=explanation.title(),
        photo=photo_uri(photo.pixels),
        photo_name=photo.name,
        size=(width, height),
        heat=heat_uri(heat, shape),
        box=box,
        whole=box["width"] * box["height"] > 0.999,
        density=explanation.density[0].item(),
        model=explanation.model,
    )


def classes_view(answer: Answer) -> str:
    """The five most probable classes as buttons, and the one asked for if it is another."""
    explanation = answer.explanation
    rows = explanation.top(5)
    if answer.target not in [number for number, _, _ in rows]:
        probability = explanation.probabilities[0, answer.target].item()
        rows.append((answer.target, explanation.label(answer.target), probability))
    return render("classes", rows=rows, target=answer.target)


def flow_view(explanation: Explanation) -> str:
    """Every layer from the top feature map to the pixels, one shown at a time.

    Args:
        explanation: of one photo, made with ``record=True``.
    """
    photo = (photo_of(explanation, 0) * 255).round().astype(np.uint8)
    shape = photo.shape[0], photo.shape[1]
    layers = []
    for seen in spatial_flow(explanation, 0):
        station, pixels = station_of(seen, 0), seen.layer == "image"
        maps = [] if pixels else strongest_maps(seen, 0, MAPS)
        layers.append(
            {
                "name": station.name,
                "size": " × ".join(map(str, station.size)),
                "maps": station.maps,
                "of": station.size[0],
                "density": station.density,
                "forward_range": _range(station.forward),
                "backward_range": _range(station.backward),
                "forward": None if pixels else forward_uri(station.forward),
                "backward": signed_uri(station.backward),
                "coarse": min(station.size[1:]) < 64,
                "support": heat_uri(station.strength, shape, SMALL),
                "strongest": [(m.number, m.share, forward_uri(m.activation)) for m in maps],
            }
        )
    return render(
        "flow", title=explanation.title(), photo=photo_uri(photo), layers=layers, rows=ROWS
    )


def _range(values: Array) -> str:
    low, high = (f"{value:.2g}".replace("-", "−") for value in (values.min(), values.max()))
    return f"{low} to {high}" if low != high else f"{low} everywhere"


def compare_view(found: Sequence[Comparison], total: int) -> str:
    """What several methods say, side by side; ``total`` are asked in all."""
    cells = []
    for comparison in found:
        row, method = comparison.rows[0], comparison.methods[0]
        cell = row.cells[0]
        drawn = {"heat": "", "support": 0.0}
        if cell.map is not None:
            drawn = {
                "heat": heat_uri(cell.map.numpy(), row.picture.shape[:2], SMALL),
                "support": support_fraction(cell.map[None]).item(),
            }
        facts = {"name": method.name, "source": method.source, "error": cell.error}
        cells.append({**facts, **drawn})
    row = found[0].rows[0]
    return render(
        "compare",
        title=f"{row.label} ({row.probability:.1%})",
        photo=photo_uri(row.picture, SMALL),
        cells=cells,
        left=total - len(cells),
    )


def sweep_view(rows: Sequence[Sweep], total: int) -> str:
    """The grid of k and threshold; ``total`` rows are asked for in all."""
    first = rows[0].explanations[0][0]
    photo = first.photos[0]
    left, top, right, bottom = map(round, first.regions[0])
    seen = photo.pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    lines = []
    for row in rows:
        cells = [
            {
                "heat": heat_uri(cell.to_heatmap()[0].float().numpy(), seen.shape[:2], SMALL),
                "density": row.density[0, column].item(),
                "kept": row.kept[0, column].item(),
                "removed": row.removed[0, column].item(),
            }
            for column, cell in enumerate(row.explanations[0])
        ]
        lines.append({"k": row.ks[0], "cells": cells})
    return render(
        "sweep",
        title=first.title(),
        photo=photo_uri(seen, SMALL),
        thresholds=[threshold_name(threshold) for threshold in rows[0].thresholds],
        rows=lines,
        left=total - len(lines),
        probability=rows[0].probability,
        blurred=rows[0].blurred,
    )


def download_view(answer: Answer, token: str) -> str:
    """Links to the files of an answer, and the program that computes it again."""
    return render("download", token=token, stem=answer.stem, snippet=snippet(answer))


def empty_view(text: str) -> str:
    """What stands where there is nothing yet."""
    return render("empty", text=text)
