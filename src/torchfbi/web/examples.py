"""The photos to try: those that scikit-image ships, or the two that come along."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torchfbi.models.images import Photo
from torchfbi.models.photos import CAT

NAMES = {
    "coffee.png": "A cup of coffee",
    "camera.png": "A photographer with his camera",
    "motorcycle_left.png": "A motorcycle in a garage",
    "astronaut.png": "An astronaut",
    "chelsea.png": "A tabby cat",
    "rocket.jpg": "A rocket at its launch pad",
    "coffee.jpg": "A cup of coffee",
    "cat.jpg": "A tabby cat",
}
"""The first is explained on arrival: one whose explanation by the embedded network holds. Those of
cat and rocket do not, and come after them."""


def examples() -> dict[str, Photo]:
    """The photos by name: scikit-image's where it is installed."""
    package = importlib.util.find_spec("skimage")
    origin = None if package is None else package.origin
    folder = CAT.parent if origin is None else Path(origin).parent / "data"
    return {name: Photo.read(folder / name) for name in NAMES if (folder / name).is_file()}
