"""The photos of tests and pictures: shipped by scikit-image and scikit-learn, or composed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage
import sklearn
from PIL import Image

FOLDER = Path(skimage.__file__).parent / "data"
SKLEARN = Path(sklearn.__file__).parent / "datasets/images"
CAT, COFFEE = FOLDER / "chelsea.png", FOLDER / "coffee.png"
SHIPPED = [
    CAT,
    COFFEE,
    *(FOLDER / name for name in ("motorcycle_left.png", "rocket.jpg", "astronaut.png")),
    *(SKLEARN / f"{name}.jpg" for name in ("china", "flower")),
]


def cat_beside_coffee() -> np.ndarray:
    """Half a cat's face on the left, a cup of coffee on the right, uint8 (448, 448, 3)."""
    halves = [(CAT, (85, 0, 235, 300)), (COFFEE, (190, 0, 390, 400))]
    pictures = [Image.open(path).convert("RGB").crop(box) for path, box in halves]
    return np.concatenate([np.asarray(picture.resize((224, 448))) for picture in pictures], 1)
