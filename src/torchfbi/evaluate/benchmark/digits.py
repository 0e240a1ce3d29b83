"""Printed digits among specks, for the trained max-pool network that reads digits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from torchfbi.errors import ModelError
from torchfbi.evaluate.benchmark.predict import RECOGNISED, check, prepare, probabilities
from torchfbi.evaluate.benchmark.scene import Scene, Suite
from torchfbi.models import load

FACES = ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "Serif", "Serif-Bold", "Serif-Italic")
"""Faces of DejaVu, which comes with matplotlib."""

LOST = 0.25
"""Below this probability a digit is gone with its ink: on black the network gives .18 at most."""

FINE = 8
"""Pixels of the drawing to one of the network's."""

SPECKS = 4


class Drawing(NamedTuple):
    """A digit among specks.

    Args:
        picture: uint8 (H, W), white on black.
        specks: the same without the digit.
        ink: the pixels of which the digit covers at least a quarter, bool (H, W).
    """

    picture: npt.NDArray[np.uint8]
    specks: npt.NDArray[np.uint8]
    ink: npt.NDArray[np.bool_]


def draw(rng: np.random.Generator, digit: int, side: int) -> Drawing:
    """Draw a digit of random face, size, slant and place, and specks that do not touch it.

    Args:
        rng: every draw comes from it.
        digit: 0 to 9.
        side: height and width in pixels.
    """
    fine = side * FINE
    canvas = Image.new("L", (fine, fine))
    font = _font(str(rng.choice(FACES)), rng.uniform(0.75, 0.95) * fine)
    x, y = fine * (0.5 + rng.uniform(-0.06, 0.06, 2))
    ImageDraw.Draw(canvas).text((x, y), str(digit), fill=255, font=font, anchor="mm")
    canvas = canvas.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    small = canvas.resize((side, side), Image.Resampling.BOX)
    cover, near = np.array(small), np.array(small.filter(ImageFilter.MaxFilter(5)))
    specks = np.zeros_like(cover)
    for row, column in rng.permutation(np.argwhere(near == 0))[:SPECKS]:
        specks[row, column] = rng.integers(128, 256)
    return Drawing(np.maximum(cover, specks), specks, cover >= 64)


def digits(count: int = 48, seed: int = 0) -> Suite:
    """Digits that the network ``digits`` reads, and no longer when their ink is removed.

    Every digit is as frequent as the others. The specks are there so that not all that is bright
    is evidence.

    Args:
        count: how many scenes.
        seed: of the drawings.

    Raises:
        ModelError: the package of the network is missing: pip install 'torchfbi[digits]'.
        SettingsError: a count below 1 or a negative seed.
    """
    model = load("digits")
    check(model, count, seed)
    scenes: list[Scene] = []
    attempt = 0
    while len(scenes) < count:
        if attempt > 20 * count:
            raise ModelError(f"{model.name} does not read printed digits: are these its weights?")
        digit = len(scenes) % 10
        drawing = draw(np.random.default_rng((seed, attempt)), digit, model.preprocess.size[0])
        attempt += 1
        pictures = [np.stack([grey] * 3, -1) for grey in (drawing.picture, drawing.specks)]
        inputs = [prepare(model, picture) for picture in pictures]
        whole, bare = probabilities(model, inputs)[:, digit].tolist()
        if whole > RECOGNISED and bare < LOST:
            scenes.append(
                Scene(
                    name=f"{digit} ({attempt})",
                    picture=pictures[0],
                    x=inputs[0],
                    target=digit,
                    mask=torch.from_numpy(drawing.ink),
                )
            )
    description = (
        f"Printed digits among specks that a trained max-pool network reads (p > {RECOGNISED}) "
        f"and no longer reads (p < {LOST}) without them; the mask is the digit's ink."
    )
    return Suite("digits", description, model, tuple(scenes))


def _font(face: str, size: float) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVu{face}.ttf")
    return ImageFont.truetype(str(path), size)
