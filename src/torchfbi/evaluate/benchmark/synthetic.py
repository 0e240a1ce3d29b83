"""A small network, trained here within seconds on images whose evidence is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from torchfbi.errors import ModelError
from torchfbi.evaluate.benchmark.predict import RECOGNISED, check, prepare, probabilities
from torchfbi.evaluate.benchmark.scene import Scene, Suite
from torchfbi.evaluate.benchmark.shapes import NAMES, SIDE, Sample, sample
from torchfbi.models import Labels, Model
from torchfbi.models.preprocess import Preprocess

STEPS, BATCH, RATE = 300, 16, 0.01

FRESH = 350
"""Images that the trained network is examined on."""

ACCURACY = 0.95
"""The share of them that it must get right."""

LOST = 0.02
"""Below this probability the class is gone with its shape."""

_TRAINING, _EXAMINATION, _SCENES = range(3)
"""First number of the seeds: no image is drawn twice."""


@cache
def network() -> Model:
    """The trained network: three times (convolution, batch norm, ReLU, max pooling), 19 thousand
    parameters, 48 x 48 pixels, seven classes. Trained at the first call, the same every time.

    Raises:
        ModelError: it did not learn its task on this machine.
    """
    model = trained(lambda number: _sample(_TRAINING, number))
    reached = accuracy(model)
    if reached < ACCURACY:
        raise ModelError(f"the synthetic network gets only {reached:.0%} right after training.")
    return model


def trained(draw: Callable[[int], Sample], steps: int = STEPS) -> Model:
    """The same network, trained on any images: on some with a planted watermark, for instance.

    Args:
        draw: from a number, which it gets once, to an image.
        steps: batches of 16 images.
    """
    generator = torch.Generator().manual_seed(0)
    # Neither does a caller's inference mode reach in, nor is a global random number drawn.
    with torch.inference_mode(False), torch.enable_grad():
        module = _untrained(generator)
        _train(module, draw, steps)
    preprocess = Preprocess(SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3, fit="stretch")
    return Model(module.eval().requires_grad_(False), preprocess, Labels(NAMES), "synthetic")


def accuracy(model: Model) -> float:
    """The share of fresh images, of all classes, that the network gets right."""
    samples = [_sample(_EXAMINATION, i) for i in range(FRESH)]
    answers = probabilities(model, [prepare(model, s.picture) for s in samples]).argmax(1)
    return (answers == torch.tensor([s.target for s in samples])).float().mean().item()


def synthetic(count: int = 48, seed: int = 0) -> Suite:
    """Scenes of which the network recognises the shape, and says otherwise without it.

    Every shape is as frequent as the others.

    Args:
        count: how many scenes.
        seed: of the images; the network is always the same.

    Raises:
        ModelError: as for ``network``.
        SettingsError: a count below 1 or a negative seed.
    """
    model = network()
    check(model, count, seed)
    scenes: list[Scene] = []
    number = 0
    while len(scenes) < count:
        target = 1 + len(scenes) % (len(NAMES) - 1)
        drawn = sample(np.random.default_rng((_SCENES, seed, number)), target)
        number += 1
        inputs = [prepare(model, picture) for picture in (drawn.picture, drawn.bare)]
        whole, bare = probabilities(model, inputs)[:, target].tolist()
        if whole > RECOGNISED and bare < LOST:
            name = f"{NAMES[target]} ({number})"
            scenes.append(
                Scene(name, drawn.picture, inputs[0], target, torch.from_numpy(drawn.mask))
            )
    description = (
        "Coloured shapes among distractors, for a small network trained on nothing else: by "
        "construction only the shape under the mask decides. Recognised "
        f"(p > {RECOGNISED}), and lost (p < {LOST}) when the shape is painted over."
    )
    return Suite("synthetic", description, model, tuple(scenes))


def _sample(use: int, number: int) -> Sample:
    return sample(np.random.default_rng((use, number)), number % len(NAMES))


def _untrained(generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    with torch.device("meta"):
        for maps, more in ((3, 16), (16, 32), (32, 48)):
            layers += [
                nn.Conv2d(maps, more, 3, padding=1, bias=False, dtype=torch.float32),
                nn.BatchNorm2d(more, dtype=torch.float32),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        layers += [nn.MaxPool2d(SIDE // 8), nn.Flatten()]
        layers += [nn.Linear(48, len(NAMES), dtype=torch.float32)]
    module = nn.Sequential(*layers).to_empty(device="cpu")
    for layer in module:
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def _train(module: nn.Sequential, draw: Callable[[int], Sample], steps: int) -> None:
    """Adam on images that are seen once, its rate falling to zero along a cosine."""
    optimizer = torch.optim.Adam(module.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        samples = [draw(step * BATCH + i) for i in range(BATCH)]
        loss = cross_entropy(module(_batch(samples)), torch.tensor([s.target for s in samples]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()


def _batch(samples: list[Sample]) -> Tensor:
    """Images as ``Preprocess`` prepares them, but left in the order of pixels: twice as fast."""
    pixels = torch.from_numpy(np.stack([s.picture for s in samples]))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
