"""The photos to try: those that scikit-image ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torchfbi.models.images import Photo

NAMES = {
    "chelsea.png": "A tabby cat",
    "coffee.png": "A cup of coffee",
    "rocket.jpg": "A rocket at its launch pad",
    "motorcycle_left.png": "A motorcycle in a garage",
    "astronaut.png": "An astronaut",
    "camera.png": "A photographer with his camera",
}


def examples() -> dict[str, Photo]:
    """The photos by name; none where scikit-image is missing."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        return {}
    folder = Path(package.origin).parent / "data"
    return {name: Photo.read(folder / name) for name in NAMES if (folder / name).is_file()}
