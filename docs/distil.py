"""The dense layers of ``vgg16-distilled``, found by what the embedded network says of photos.

``python docs/distil.py PHOTOS`` finds them anew from a folder of any photos; labels are
not needed. Of every photo both networks look at the same crops, each at 7 x 7 positions, so that
the mean over any window of them is one more crop. The first dense layer is the ridge regression of
the teacher's last feature (a hint, as Romero et al. 2015 call it) on the means of VGG-16's maps.
The second is the teacher's own last layer, which knows classes of which there is no photo as well.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchfbi.models import vgg
from torchfbi.models.embedded import efficientnet_lite0
from torchfbi.models.images import SUFFIXES, Photo

SMALLEST, LONGEST = 0.15, 4 / 3
"""A crop's least share of the photo's area, and how many times longer than wide it is at most."""

KEPT_ASIDE = 5
"""Of so many photos, in the order of their names, the last is not learnt from."""

WINDOWS, RIDGE = 6, 0.1
"""Windows of each crop, and the ridge for standardised means, per sample."""

SHARPER = 2.0
"""How many times the teacher's largest logits the student's are, on photos that it did not learn
from. The teacher was trained with smoothed labels, which holds its logits at about 10; with hard
ones, as the published VGG-16 was, they grow on. What the paper's tau = 10 is compared with scales
with their square; the factor is a choice, since the published dense layers cannot be measured here.
The probabilities are overconfident for it."""

TOGETHER = 5
"""Crops in one forward pass."""


class Maps(NamedTuple):
    """What both networks see of one crop of every photo, float16.

    Args:
        student: (photos, 512, 7, 7), behind the last pooling of VGG-16.
        teacher: (photos, 1280, 7, 7), the last feature of EfficientNet-Lite0.
    """

    student: Tensor
    teacher: Tensor


def cropped(photo: Photo, index: int, crop: int) -> Photo:
    """Crop 0 is the whole photo; others are parts at random, half of them mirrored."""
    if crop == 0:
        return photo
    random = np.random.default_rng((index, crop))
    height, width = photo.shape
    area, ratio = random.uniform(SMALLEST, 1), LONGEST ** random.uniform(-1, 1)
    tall = min(height, round((height * width * area / ratio) ** 0.5))
    wide = min(width, round((height * width * area * ratio) ** 0.5))
    top, left = random.integers(height - tall + 1), random.integers(width - wide + 1)
    pixels = photo.pixels[top : top + tall, left : left + wide]
    return Photo(np.ascontiguousarray(pixels[:, :: random.choice((-1, 1))]), photo.name)


class Networks:
    """Teacher and student up to their last features."""

    def __init__(self) -> None:
        teacher = efficientnet_lite0()
        self.preprocess = teacher.preprocess
        self.teacher: Any = teacher.module
        self.student = vgg.convolutions()
        self.student.load_state_dict(vgg.published(vgg.tumour_file()))
        # Half the time; what it rounds off is little beside what the next crop changes.
        self.student.eval().bfloat16()
        self.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def see(self, photos: list[Photo]) -> Maps:
        """Their maps of some photos."""
        student = torch.stack([vgg.PREPROCESS(photo)[0] for photo in photos])
        teacher = torch.stack([self.preprocess(photo)[0] for photo in photos])
        return Maps(
            self.student(student.bfloat16().contiguous(memory_format=torch.channels_last)).half(),
            self.teacher.extract_features(teacher).half(),
        )


def look(paths: list[Path], crop: int, cache: Path, networks: Networks) -> Maps:
    """The maps of one crop of every photo, from the cache if they are there."""
    file = cache / f"crop{crop}.npz"
    names = np.array([path.name for path in paths])
    if file.is_file():
        with np.load(file) as saved:
            if np.array_equal(saved["names"], names):
                return Maps(torch.from_numpy(saved["student"]), torch.from_numpy(saved["teacher"]))
    seen = []
    for start in range(0, len(paths), TOGETHER):
        photos = [Photo.read(path) for path in paths[start : start + TOGETHER]]
        crops = [cropped(photo, start + i, crop) for i, photo in enumerate(photos)]
        seen.append(networks.see(crops))
    maps = Maps(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
    np.savez(file, names=names, **{name: t.numpy() for name, t in maps._asdict().items()})
    return maps


def windows(count: int, side: int) -> Tensor:
    """Weights of means over windows at random, half of them the whole, (count, side * side)."""
    cells = torch.arange(side)
    size = torch.randint(side // 2, side + 1, (2, count, 1))
    size[:, torch.rand(count) < 0.5] = side
    first = (torch.rand(2, count, 1) * (side - size + 1)).long()
    rows, columns = (cells >= first) & (cells < first + size)
    inside = (rows[:, :, None] & columns[:, None]).flatten(1).float()
    return inside / inside.sum(1, keepdim=True)


class Head(NamedTuple):
    """What is found.

    Args:
        weight, bias: of the first dense layer, float16 (1280, 512) and (1280,).
        times: the second is the teacher's last layer, this many times.
    """

    weight: Tensor
    bias: Tensor
    times: float

    def save(self, file: Path, about: dict[str, Any]) -> None:
        """Write it, with what is to be known of it as JSON."""
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in self._asdict().items()}
        np.savez(file, about=np.array(json.dumps(about)), **arrays)


def learn(maps: list[Maps], others: Maps, classifier: nn.Linear, seed: int = 0) -> Head:
    """Find the dense layers.

    Args:
        maps: of each crop, the photos to learn from.
        others: other photos, for the scale of the logits.
        classifier: the teacher's last layer, 1280 -> 1000.
        seed: of the windows.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        means = [windows(WINDOWS, crop.student.shape[-1]).T for crop in maps]
    student, teacher = (
        torch.cat([(part.float().flatten(2) @ mean).movedim(2, 0).flatten(0, 1)
                   for part, mean in zip(parts, means, strict=True)]).double()
        for parts in zip(*maps, strict=True)
    )  # fmt: skip
    middle, spread, goal = student.mean(0), student.std(0) + 1e-3, teacher.mean(0)
    x, y = (student - middle) / spread, teacher - goal
    ridge = RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(x.T @ x + ridge, x.T @ y).T / spread
    bias = goal - weight @ middle
    found = Head(weight.half(), bias.half(), 1.0)
    largest, wanted = (z.amax(1).median() for z in both(found, others, classifier))
    return found._replace(times=(SHARPER * wanted / largest).item())


def both(head: Head, maps: Maps, classifier: nn.Linear) -> tuple[Tensor, Tensor]:
    """The logits of student and teacher, (photos, 1000) float32 each."""
    seen, told = (part.float().mean((2, 3)) for part in maps)
    feature = F.relu(F.linear(seen, head.weight.float(), head.bias.float()))
    return head.times * classifier(feature), classifier(told)


def agreement(head: Head, maps: Maps, classifier: nn.Linear) -> dict[str, float]:
    """How often the student says what the teacher says.

    Returns:
        ``photos``: how many; ``top1``: the share of them whose most probable class is the
        teacher's; ``top5``: the share with the teacher's class among the student's first five;
        ``largest`` and ``smallest``: the medians of the student's largest and smallest logit.
    """
    said, wanted = both(head, maps, classifier)
    right = said.topk(5).indices == wanted.argmax(1, keepdim=True)
    return {
        "photos": len(said),
        "top1": round(right[:, 0].double().mean().item(), 3),
        "top5": round(right.any(1).double().mean().item(), 3),
        "largest": round(said.amax(1).median().item(), 1),
        "smallest": round(said.amin(1).median().item(), 1),
    }


def main() -> None:
    """Look, learn, save, and say how well it went."""
    parser = argparse.ArgumentParser(prog="python docs/distil.py", description=__doc__)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--crops", type=int, default=7, help="of each photo (7)")
    parser.add_argument("--cache", type=Path, default=Path("fbi-out/distil"), help="for the maps")
    parser.add_argument("--out", type=Path, default=vgg.HEAD_FILE, help="the file for the layers")
    given = parser.parse_args()
    paths = sorted(p for p in given.photos.iterdir() if p.suffix.lower() in SUFFIXES)
    given.cache.mkdir(parents=True, exist_ok=True)
    networks, maps = Networks(), []
    for crop in range(given.crops):
        maps.append(look(paths, crop, given.cache, networks))
        print(f"crop {crop + 1} of {given.crops}", flush=True)
    aside = torch.arange(len(paths)) % KEPT_ASIDE == KEPT_ASIDE - 1
    learnt = [Maps(*(part[~aside] for part in crop)) for crop in maps]
    others = Maps(*(part[aside] for part in maps[0]))
    classifier = networks.teacher._fc
    head = learn(learnt, others, classifier)
    about = {
        "crops": given.crops,
        "times": round(head.times, 2),
        "learnt": agreement(head, learnt[0], classifier),
        "never seen": agreement(head, others, classifier),
    }
    head.save(given.out, about)
    print(json.dumps(about, indent=2))


if __name__ == "__main__":
    main()
