"""The pictures of the gallery: ``make gallery`` draws them again, for light and dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits

from photos import CAT, COFFEE, SHIPPED, cat_beside_coffee
from torchfbi import Photo, Settings, explain, load, plot
from torchfbi.evaluate import compare
from torchfbi.evaluate.peers import Method, find
from torchfbi.sweep import sweep

FOLDER = Path(__file__).parent / "gallery"
DPI = 100

Drawing = Callable[[bool], Figure]
"""A figure, given whether it is for a dark page."""


def named(name: str, settings: Settings) -> Method:
    return replace(find(settings), name=name)


METHODS = [
    named("contrast (default)", Settings.contrast()),
    named("contrast, signal", Settings.contrast(values="signal")),
    named("paper, tau = 0", Settings.paper(tau=0.0)),
]
DIGIT_METHODS = [
    named("contrast (default)", Settings.contrast()),
    named("paper, tau = 0", Settings.paper(tau=0.0)),
    named("paper, tau = 0.05", Settings.paper(tau=0.05)),
    named("paper with switches", Settings.paper(tau=0.0, pooling="winner")),
]


def drawings() -> Iterator[tuple[str, Drawing]]:
    """All figures of the gallery with their names."""
    network = load("efficientnet-lite0")
    cat = explain(network, CAT)
    yield "explanation", lambda dark: cat.plot(dark=dark)
    photos = [Photo.read(path) for path in SHIPPED]
    shipped = compare(network, photos, METHODS)
    yield "photos", lambda dark: shipped.plot(dark=dark)
    cats = compare(network, [Photo.read(CAT)], METHODS, ["top1", "top2", "top3", "top4"])
    yield "classes", lambda dark: cats.plot(dark=dark, over_photo=True)
    both = Photo(cat_beside_coffee(), "cat beside coffee")
    objects = compare(network, [both], METHODS, ["tabby cat", "espresso"])
    yield "two-objects", lambda dark: objects.plot(dark=dark, over_photo=True)
    seen = compare(load("digits"), [digit(number) for number in (0, 3, 5, 7)], DIGIT_METHODS)
    yield "digits", lambda dark: seen.plot(dark=dark)
    espresso = explain(network, COFFEE, record=True)
    yield "flow", lambda dark: plot.flow_figure(espresso, dark=dark)
    grid = sweep(network, COFFEE, ks=[0.1, 0.5, 1.0], taus=[0.0, 0.02, 0.1, 0.5])
    yield "sweep", lambda dark: plot.sweep_figure(grid, dark=dark)


def digit(number: int) -> Photo:
    """A handwritten digit, 8 x 8 in the data set, on a margin as MNIST has it."""
    small = Image.fromarray((load_digits().images[number] * 255 / 16).astype(np.uint8))
    wide = np.pad(np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC)), 4)
    return Photo.read(wide, f"a {number}")


def save(name: str, draw: Drawing) -> None:
    for theme, dark in (("light", False), ("dark", True)):
        png = io.BytesIO()
        plot.save(draw(dark), png, dpi=DPI)
        picture = Image.open(png).convert("RGB")
        picture.save(FOLDER / f"{name}-{theme}.webp", quality=82, method=6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for name, draw in drawings():
        save(name, draw)
