"""Pictures: read any of them as a person sees them."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from torchfbi.errors import ImageError

Array: TypeAlias = npt.NDArray[Any]
Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | Array

MAX_PIXELS = 89_478_485
"""Larger files are refused undecoded: a small file may claim a picture that exhausts the memory.
It is the size (a quarter GiB of RGB) from which Pillow warns as well."""

SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"],
)
"""What is taken for a picture in a folder, in upper or lower case."""


def pictures(folder: Path) -> Iterator[Path]:
    """The pictures right in a folder, by their names; hidden ones are left out."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as a person sees it.

    Args:
        pixels: uint8 (H, W, 3), RGB, upright, nothing transparent, H and W at least 1.
        name: what to call it in messages and captions.

    Raises:
        ImageError: ``pixels`` has another shape or dtype.
    """

    pixels: npt.NDArray[np.uint8]
    name: str = "photo"

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            photo = "a non-empty uint8 array (H, W, 3)"
            raise ImageError(f"{self.name} is {dtype} {shape}, not {photo}. Try Photo.read.")
        if self.pixels.flags.writeable or isinstance(self.pixels.base, np.ndarray):
            # The caller may write over it, or over what it is a view of.
            object.__setattr__(self, "pixels", self.pixels.copy())
            self.pixels.setflags(write=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @classmethod
    def read(cls, source: Source, name: str | None = None) -> Photo:
        """Read a picture of any common format and colour mode.

        EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to
        8 bit, and of an animation or a multi-page file the first picture is taken.

        Args:
            source: path, bytes of a file, binary file object (read from where it stands), PIL
                image, or array (H, W), (H, W, 3) or (H, W, 4) of uint8 or float in [0, 1].
            name: what to call it; by default the name of the file, or ``"photo"``.

        Raises:
            ImageError: it is missing, empty, damaged, larger than ``MAX_PIXELS``, or no picture.
        """
        if isinstance(source, (str, os.PathLike)):
            if re.match(r"[a-z][a-z0-9+.-]+:/", str(source), re.IGNORECASE):  # "C:/" is a drive
                raise ImageError(
                    f"{source} is an address: download the picture, and give its path."
                )
            path = Path(source).expanduser()
            return cls(_read_path(path), name or path.name)
        file = str(getattr(source, "filename", "") or getattr(source, "name", ""))
        name = name or Path(file).name or "photo"
        if isinstance(source, np.ndarray):
            return cls(_read_array(source, name), name)
        if isinstance(source, Image.Image):
            return cls(_decode(source, name), name)
        data = source.read() if hasattr(source, "read") else source
        if isinstance(data, (bytes, bytearray, memoryview)):
            if not data:
                raise ImageError(f"{name} is empty: 0 bytes. Is the file object at its end?")
            return cls(_decode(io.BytesIO(data), name), name)
        raise ImageError(
            f"Cannot read a picture from {type(source).__name__}. Pass a path, bytes, a file "
            "object opened with mode 'rb', a PIL image or a NumPy array."
        )


def _read_path(path: Path) -> Array:
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else f"is no file (seen from {Path.cwd()})"
            raise ImageError(f"{path} {what}. Pass the path of a picture.")
        if path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes). Copy or download it again.")
        with path.open("rb") as file:
            return _decode(file, str(path))
    except OSError as error:
        raise ImageError(f"{path} cannot be opened: {error.strerror or error}.") from error


def _read_array(array: Array, name: str) -> Array:
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        shapes = "(H, W), (H, W, 3) or (H, W, 4), channels last"
        raise ImageError(f"{name} has shape {array.shape}, but a picture has {shapes}.")
    if np.issubdtype(array.dtype, np.floating):
        array = _eight_bit(array, 1, name)
    if array.dtype != np.uint8:
        raise ImageError(f"{name} is of {array.dtype}. Convert it to uint8, or to float in [0, 1].")
    return _to_rgb(Image.fromarray(array), name)


def _eight_bit(array: Array, white: int, name: str) -> Array:
    if not (array.min() >= 0 and array.max() <= white):  # also true of NaN
        raise ImageError(
            f"{name} has values from {array.min():g} to {array.max():g}, but 0 is black and "
            f"{white} is white in {array.dtype}. Rescale it, or convert it to uint8."
        )
    return np.rint(array.astype(np.float64) * (255 / white)).astype(np.uint8)


def _decode(source: BinaryIO | Image.Image, name: str) -> Array:
    too_large = ImageError(f"{name} has over {MAX_PIXELS / 1e6:.0f} million pixels. Scale it down.")
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        if image.width * image.height > MAX_PIXELS:
            raise too_large
        return _to_rgb(image, name)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is no picture Pillow knows. Convert it to PNG; a clip is for 'torchfbi video'."
        ) from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
        raise ImageError(
            f"{name} cannot be decoded: it seems damaged or cut short ({error}). Copy or download "
            "it again, or save it anew as PNG."
        ) from error


def _to_rgb(image: Image.Image, name: str) -> Array:
    if image.format in ("EPS", "WMF"):  # Pillow would start an interpreter, Ghostscript, for it
        raise ImageError(f"{name} is a vector drawing. Convert it to PNG.")
    image.load()
    with contextlib.suppress(Exception):  # damaged EXIF spoils the orientation, not the picture
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # grey of 16 or 32 bit, integer or float
        grey = _eight_bit(np.asarray(image), 1 if image.mode == "F" else 65535, name)
        image = Image.fromarray(grey)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))
