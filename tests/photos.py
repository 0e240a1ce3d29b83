"""The photos of the tests: shipped by scikit-image, or composed of those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

FOLDER = Path(skimage.__file__).parent / "data"
CAT, COFFEE = FOLDER / "chelsea.png", FOLDER / "coffee.png"


def cat_beside_coffee() -> np.ndarray:
    """Half a cat's face on the left, a cup of coffee on the right, uint8 (448, 448, 3)."""
    halves = [(CAT, (85, 0, 235, 300)), (COFFEE, (190, 0, 390, 400))]
    pictures = [Image.open(path).convert("RGB").crop(box) for path, box in halves]
    return np.concatenate([np.asarray(picture.resize((224, 448))) for picture in pictures], 1)
