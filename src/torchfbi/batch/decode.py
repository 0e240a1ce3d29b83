"""From a source to what a network takes; a bad image becomes its error."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from torchfbi.batch.sources import Source, printable
from torchfbi.errors import TorchFBIError
from torchfbi.models.images import Photo
from torchfbi.models.preprocess import Preprocess, Region

QUALITY = 90
"""Of the JPEG that shows what the network saw."""


class Decoded(NamedTuple):
    """An image, ready for the network, or why it is not.

    Args:
        number: of the image in the input.
        path: its name.
        sha256: of its bytes, 64 hex digits; None where they could not be read.
        x: float32 (C, H, W), or None.
        image: what the network sees of it as a JPEG, or None.
        region: which part of the photo that is, in photo pixels.
        error: what was wrong, or None.
    """

    number: int
    path: str
    sha256: str | None = None
    x: npt.NDArray[np.float32] | None = None
    image: bytes | None = None
    region: Region | None = None
    error: str | None = None


def decode(source: Source, preprocess: Preprocess, indices: Iterable[int]) -> list[Decoded]:
    """Read, decode and preprocess some images of a source; one entry for each."""
    return [_decode(source, preprocess, index) for index in indices]


def _decode(source: Source, preprocess: Preprocess, index: int) -> Decoded:
    found = Decoded(index, printable(source.names[index]))
    try:
        content = source.read(index)
        found = found._replace(sha256=hashlib.sha256(content).hexdigest())
        x, region = preprocess(Photo.read(content, found.path))
    except (TorchFBIError, MemoryError) as error:
        return found._replace(error=str(error) or "out of memory while it was decoded")
    buffer = io.BytesIO()
    Image.fromarray(preprocess.denormalise(x)).save(buffer, "JPEG", quality=QUALITY)
    return found._replace(x=x.numpy(), image=buffer.getvalue(), region=region)
