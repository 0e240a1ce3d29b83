"""A verdict's numbers computed again: slowly, in NumPy, by code of their own.

Nothing of ``torchfbi.verification`` is used but the verdict itself: the Gaussian is summed pixel by
pixel, the parts are pasted by hand, the class is kept where it has the largest probability.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from torchfbi import explain
from torchfbi.verification import PARTS, Verdict

SIDE = 20


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    """Random filters of detail in double precision; class 2 looks at the upper left corner, class 0
    is the answer where there is no detail."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(8 * 36, 4),
    ).double().eval()  # fmt: skip
    filters = net[0].weight.data
    filters -= filters.mean((2, 3), keepdim=True)
    net[0].bias.data.zero_()
    corner = net[4].weight.data.view(4, 8, 6, 6)
    corner[2, :, :2, :2] += 1.5
    net[4].bias.data[0] += 1.0
    return net


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """(C, H, W): every pixel the weighted mean of those around it, edges continued."""
    reach = math.ceil(3 * sigma)
    weights = [math.exp(-((d / sigma) ** 2) / 2) for d in range(-reach, reach + 1)]
    _, height, width = image.shape
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            for i, down in enumerate(range(-reach, reach + 1)):
                for j, right in enumerate(range(-reach, reach + 1)):
                    row = min(max(y + down, 0), height - 1)
                    column = min(max(x + right, 0), width - 1)
                    result[:, y, x] += weights[i] * weights[j] * image[:, row, column]
    return result / sum(weights) ** 2


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_number_of_a_verdict(network: nn.Sequential) -> None:
    x = torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64, generator=seeded(1))
    x[:, :, 1:7, 1:7] *= 4.0
    explanation = explain(network, x, 2)
    (verdict,) = explanation.verify()
    image = x[0].numpy()
    means = np.array([sum(channel.flatten()) / SIDE**2 for channel in image])
    others = {
        "blur": blurred(image, verdict.sigma),
        "mean": np.broadcast_to(means[:, None, None], image.shape),
    }

    def answer(picture: np.ndarray) -> tuple[float, bool]:
        logits = network(torch.from_numpy(picture)[None])[0].detach().numpy()
        powers = np.exp(logits)
        return powers[2] / powers.sum(), all(logits[2] > logits[j] for j in (0, 1, 3))

    assert verdict.probability == pytest.approx(answer(image)[0], abs=1e-6)
    assert verdict.is_answer == answer(image)[1]
    checked = 0
    for name in PARTS:
        part = getattr(verdict, name)
        if part is None:
            continue
        mask = part.mask.numpy()
        assert part.share == pytest.approx(mask.sum() / SIDE**2, abs=1e-6)
        shown = ~mask if name == "necessary" else mask
        for removal, probability in part.probabilities.items():
            mixed = np.where(shown, image, others[removal])
            expected, kept = answer(mixed)
            assert probability == pytest.approx(expected, abs=1e-6)
            assert part.kept[removal] == kept
            checked += 1
    assert checked >= 12
    assert all(verdict.sufficient.kept.values())
    assert verdict.most.probability >= 0.9 * verdict.probability
    assert verdict.most.share >= verdict.claimed.share >= verdict.sufficient.share
    if verdict.necessary is not None:
        assert not any(verdict.necessary.kept.values())
    assert isinstance(verdict, Verdict)

    noise = torch.randn(3, SIDE, SIDE, dtype=torch.float64, generator=seeded(0)).numpy()
    middle = image.sum() / image.size
    spread = math.sqrt(((image - middle) ** 2).sum() / image.size)
    moved = np.empty_like(image)
    for y in range(SIDE):
        for x in range(SIDE):
            moved[:, y, x] = image[:, max(y - 1, 0), max(x - 1, 0)]  # a pixel is 1 / 20 of a side

    def ranks(picture: np.ndarray, by: int) -> list[tuple[int, int]]:
        """Places from the one with most evidence on, in the image's own coordinates."""
        found = explain(network, torch.from_numpy(picture)[None], 2).evidence[0].numpy()
        back = np.empty_like(found)
        for y in range(SIDE):
            for x in range(SIDE):
                back[y, x] = found[min(y + by, SIDE - 1), min(x + by, SIDE - 1)]
        smooth = blurred(back[None], SIDE / 8)[0]
        return sorted(np.ndindex(SIDE, SIDE), key=lambda place: -smooth[place])

    def shared(one: list[tuple[int, int]], other: list[tuple[int, int]], size: int) -> float:
        """Of the first tenth within the first ``size`` rows and columns."""
        seen = [[p for p in each if max(p) < size][: round(size**2 / 10)] for each in (one, other)]
        return len(set(seen[0]) & set(seen[1])) / len(seen[0])

    own = ranks(image, 0)
    expected = shared(own, ranks(image + 0.1 * spread * noise, 0), SIDE)
    assert verdict.stability.noise == pytest.approx(expected, abs=1e-6)
    assert verdict.stability.shift == pytest.approx(
        shared(own, ranks(moved, 1), SIDE - 1), abs=1e-6
    )
