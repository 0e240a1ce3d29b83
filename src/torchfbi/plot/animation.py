"""The information flow as an animation: one frame a layer."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from torchfbi.errors import SettingsError
from torchfbi.plot import fonts
from torchfbi.plot.files import write
from torchfbi.plot.flow import ROWS, draw, photo_of, spatial_flow, station_of
from torchfbi.plot.style import MARGIN, SMALL, Sheet

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation


def flow_animation(
    explanation: Explanation,
    path: str | os.PathLike[str],
    index: int = 0,
    *,
    dark: bool = False,
    duration_ms: int = 700,
) -> Path:
    """Write an endless animation of the flow: a frame for every layer, from the top to the pixels.

    Each frame shows what a column of ``flow_figure`` shows, larger. The last frame, the pixels,
    stays three times as long.

    Args:
        explanation: made with ``record=True``, of pictures.
        path: .gif, or .png or .apng for an animated PNG; missing folders are made.
        index: which sample.
        dark: light text on a dark page.
        duration_ms: how long a frame stays, at least 20.

    Returns:
        The path.

    Raises:
        SettingsError: another suffix, the flow was not recorded, no such sample.
        ImageError: the file cannot be written.
    """
    path = Path(path)
    formats = {".gif": "GIF", ".png": "PNG", ".apng": "PNG"}
    if path.suffix.lower() not in formats:
        raise SettingsError(f"{path}: animations are saved as {', '.join(formats)}.")
    if duration_ms < 20:
        raise SettingsError(f"duration_ms is {duration_ms}: browsers show no frame under 20 ms.")
    frames = list(_frames(explanation, index, dark))
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        formats[path.suffix.lower()],
        save_all=True,
        append_images=frames[1:],
        duration=[duration_ms] * (len(frames) - 1) + [3 * duration_ms],
        loop=0,
    )
    write(path, buffer.getvalue())
    return path


def _frames(explanation: Explanation, index: int, dark: bool) -> Iterator[Image.Image]:
    flow = spatial_flow(explanation, index)
    photo = photo_of(explanation, index)
    side, gap = 2.8, 0.2
    tall = float(np.clip(photo.shape[0] / photo.shape[1], 0.5, 1.3)) * side
    for number, seen in enumerate(flow):
        station = station_of(seen, index)
        sheet = Sheet(2 * MARGIN + 3 * side + 2 * gap, 1.05 + tall + 0.75, dark)
        size = " × ".join(map(str, station.size))
        place = f"feature {number + 1} of {len(flow)} on the way from the class to the pixels"
        sheet.heading(f"{station.name}  ({size})", f"{fonts.title(explanation, index)}, {place}")
        boxes = [(MARGIN + i * (side + gap), 1.05, side, tall) for i in range(3)]
        for (title, meaning), (x, y, _, _) in zip(ROWS, boxes, strict=True):
            text = f"{title}: " + meaning.replace("\n", " ")
            sheet.write(x, y - 0.24, text, size=SMALL, width=side)
        draw(sheet, station, photo, boxes)
        facts = f"{station.maps} of {station.size[0]} maps go on, density {station.density:.1%}"
        sheet.write(MARGIN, 1.15 + tall, facts, colour=sheet.theme.muted)
        bar = sheet.panel(MARGIN, sheet.height - 0.3, sheet.width - 2 * MARGIN, 0.08, "progress")
        bar.set(xlim=(0, 1), ylim=(-0.5, 0.5))
        for length, colour in (
            (1, sheet.theme.track),
            ((number + 1) / len(flow), sheet.theme.accent),
        ):
            bar.barh(0, length, height=1, color=colour)
        yield sheet.image()
