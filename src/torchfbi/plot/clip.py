"""An explained clip: in each frame the photo, and what speaks for the class in it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from torchfbi import atomic
from torchfbi.errors import SettingsError
from torchfbi.models import clips
from torchfbi.plot import fonts
from torchfbi.plot.overlay import raster, revealed, strengthen
from torchfbi.plot.style import MARGIN, SMALL, Sheet

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation

CODECS = {"mp4": "libx264", "webm": "libvpx-vp9"}
MILLISECOND = Fraction(1, 1000)
FORMATS = (*CODECS, "gif")

_SIDE, _GAP, _TOP, _CURVE = 3.6, 0.2, 0.75, 0.5


def frame(
    explanation: Explanation,
    now: int,
    times: Sequence[float],
    probabilities: Sequence[float],
    dark: bool = False,
) -> Image.Image:
    """Draw one frame: the photo, and the photo revealed by what speaks for the class; below them
    how probable the class is all along the clip.

    Args:
        explanation: of this frame alone.
        now: which one of the clip it is.
        times, probabilities: of all frames, in seconds and in [0, 1].
        dark: light text on a dark page.
    """
    seen = raster(explanation, 0)
    size = seen.shape[0], seen.shape[1]
    tall = min(max(size[0] / size[1], 0.4), 1.5) * _SIDE
    sheet = Sheet(2 * MARGIN + 2 * _SIDE + _GAP, _TOP + tall + _CURVE + 3 * MARGIN, dark)
    strength = strengthen(explanation.evidence[0].float().cpu().numpy(), size)
    _, said, probability = explanation.top(1)[0]
    answer = f"the network sees: {said} ({probability:.1%})"
    sheet.heading(fonts.title(explanation, 0), f"{times[now]:.1f} s  ·  {answer}")
    for column, picture in enumerate((seen, revealed(seen, strength))):
        axes = sheet.panel(MARGIN + column * (_SIDE + _GAP), _TOP, _SIDE, tall)
        sheet.picture(axes, picture, size)
    if reason := explanation.emptiness():
        sheet.announce(axes, reason)
    width = sheet.width - 2 * MARGIN
    axes = sheet.panel(MARGIN, _TOP + tall + 2 * MARGIN, width, _CURVE)
    axes.set(xlim=(times[0], times[-1] + 1e-9), ylim=(0, 1))
    axes.fill_between(times, probabilities, color=sheet.theme.track)
    axes.plot(times, probabilities, color=sheet.theme.muted, linewidth=1)
    axes.axvline(times[now], color=sheet.theme.accent, linewidth=1.6)
    note = "how probable the class is, from 0 to 100%"
    sheet.write(MARGIN, _TOP + tall + 0.08, note, size=SMALL, colour=sheet.theme.muted)
    return sheet.image()


def save(
    pictures: Iterable[Image.Image],
    times: Sequence[float],
    path: str | os.PathLike[str],
    seconds: float,
) -> None:
    """Write pictures of one size as a video, each at its time. Where there are fewer pictures than
    times it ends earlier.

    Args:
        times: in seconds, rising.
        path: .mp4, .webm or .gif.
        seconds: how long the last one stays.

    Raises:
        SettingsError: another suffix.
        ModelError: it is no GIF, and PyAV is not installed.
        OSError: it cannot be written.
    """
    path, buffer = Path(path), io.BytesIO()
    kind = known(path.suffix.lower().removeprefix("."))
    if kind == "gif":
        _gif(pictures, times, seconds, buffer)
    else:
        _video(pictures, times, seconds, kind, buffer)
    atomic.write(path, buffer.getvalue())


def known(kind: str) -> str:
    """The format.

    Raises:
        SettingsError: it is none of ``FORMATS``.
        ModelError: what writes it is not installed.
    """
    if kind not in FORMATS:
        raise SettingsError(f"videos are saved as {', '.join(FORMATS)}, not as {kind!r}.")
    if kind in CODECS:
        clips.library()
    return kind


def _gif(
    pictures: Iterable[Image.Image], times: Sequence[float], seconds: float, buffer: io.BytesIO
) -> None:
    first, *rest = [picture.quantize() for picture in pictures]
    ends = [*times[1:], times[-1] + seconds][: len(rest) + 1]
    shown = [round(1000 * (end - time)) for time, end in zip(times, ends, strict=False)]
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=shown, loop=0)


def _video(
    pictures: Iterable[Image.Image],
    times: Sequence[float],
    seconds: float,
    kind: str,
    buffer: io.BytesIO,
) -> None:
    av = clips.library()
    with av.open(buffer, "w", format=kind) as video:
        stream = None
        for time, picture in zip(times, _even(pictures), strict=False):
            if stream is None:
                stream = video.add_stream(CODECS[kind], rate=max(1, round(1 / seconds)))
                stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
                stream.options = {"crf": "20", "cpu-used": "5"} if kind == "webm" else {"crf": "20"}
                stream.codec_context.time_base = MILLISECOND
            image = av.VideoFrame.from_image(picture)
            image.pts, image.time_base = round(1000 * time), MILLISECOND
            video.mux(stream.encode(image))
        if stream is not None:
            video.mux(stream.encode())


def _even(pictures: Iterable[Image.Image]) -> Iterator[Image.Image]:
    """The codecs halve the colours' resolution."""
    return (p.crop((0, 0, p.width & ~1, p.height & ~1)) for p in pictures)
