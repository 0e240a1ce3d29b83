"""The measurements and figures of docs/reliability.md: ``make reliability`` (some minutes).

``python docs/reliability.py signal memory own soak determinism`` makes those that are named.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import skimage
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import torchfbi
from marks import fill
from torchfbi import ForwardBackward, Photo, Settings
from torchfbi.capture.own import answer
from torchfbi.errors import NonFiniteError
from torchfbi.method.evidence import support_of_values

HERE = Path(__file__).parent
PHOTOS = [
    Path(skimage.__file__).parent / "data" / name
    for name in ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "camera.png")
]

WALKS = {
    "gradient": Settings.plain(),
    "paper, tau 0, k 50 %": Settings.paper(tau=0.0, k=0.5),
    "contrast without excitation": Settings.contrast(gamma=0.0),
    "contrast, the default": Settings.contrast(),
}  # fmt: skip
COLOURS = ("#555555", "#c0504d", "#2a6fbb", "#2e8b57")


class Residual(nn.Module):
    """x + scale * convolution(relu(x)), as in a residual network with scaled branches."""

    def __init__(self, maps: int, scale: float) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(maps, maps, 3, padding=1, bias=False), scale
        nn.init.kaiming_normal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.conv(torch.relu(x))


def deep(kind: str, depth: int, maps: int = 16) -> nn.Module:
    """A random network of that many convolutions, all of one width and size."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, maps, 3, padding=1)]
    for _ in range(depth - 1):
        if kind == "residual":
            layers.append(Residual(maps, depth**-0.5))
            continue
        convolution = nn.Conv2d(maps, maps, 3, padding=1)
        if kind == "plain, He weights":
            nn.init.kaiming_normal_(convolution.weight)
        layers += [nn.ReLU(), convolution]
    head = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, 10)
    return nn.Sequential(*layers, *head).eval()


KINDS = ("plain, He weights", "plain, PyTorch's weights", "residual")
DEPTHS = (100, 200, 500)


def scales(network: nn.Module, x: Tensor, settings: Settings) -> tuple[list[float], str]:
    """The root mean square of the signal that goes on at every feature, from the top down."""
    found: list[float] = []
    try:
        fbi = ForwardBackward(network, x, settings)
        fbi.walk(
            x, 3, lambda seen: found.append(seen.signal.double().square().mean().sqrt().item())
        )
    except NonFiniteError as error:
        return found, str(error)
    return found, ""


def signal() -> str:
    """The signal's scale by depth beside the gradient's."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots(len(KINDS), len(DEPTHS), sharey="row", sharex="col")
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    rows = ["| network | layers | " + " | ".join(WALKS) + " |", "|---" * (2 + len(WALKS)) + "|"]
    for i, kind in enumerate(KINDS):
        for j, depth in enumerate(DEPTHS):
            network, cells = deep(kind, depth), []
            for (name, settings), colour in zip(WALKS.items(), COLOURS, strict=True):
                found, refusal = scales(network, x, settings)
                kept = np.array(found[:-1])  # without the image, which another walk may draw
                below = np.arange(len(kept))
                axes[i, j].plot(below, np.where(kept > 0, kept, np.nan), color=colour, label=name)
                cells.append("refused" if refusal else change(kept))
            style(axes[i, j], f"{kind}, {depth} layers")
            rows.append(f"| {kind} | {depth} | " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
    axes[0, 0].legend(frameon=False, fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("features below the top")
    for axis in axes[:, 0]:
        axis.set_ylabel("RMS of the signal")
    figure.savefig(HERE / "signal-by-depth.png", dpi=110)
    return "\n".join(rows)


def change(kept: np.ndarray) -> str:
    """From the top feature to the lowest, as a factor; where it ended if it did."""
    if kept[0] == 0:
        return "empty from the top"
    if kept[-1] == 0:
        return f"empty after {int((kept > 0).sum())}"
    return f"{kept[-1] / kept[0]:.1e}"


def style(axis: Axes, title: str) -> None:
    axis.set_yscale("log")
    axis.set_title(title, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def explanations(count: int) -> Iterator[int]:
    """Explain photos of changing sizes, one after the other; yields after each."""
    model = torchfbi.load()
    photos = [Photo.read(path) for path in PHOTOS]
    for i in range(count):
        photo = photos[i % len(photos)]
        cut = Photo(photo.pixels[i % 97 :, i % 89 :].copy(), photo.name)
        torchfbi.explain(model, cut, settings=("contrast", "paper")[i % 2])
        yield i


def resident() -> float:
    """The memory of this process, also what the system wrote to the disk meanwhile, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(s.split()[1]) for s in lines if s.startswith(("VmRSS", "VmSwap"))) / 1024


class Counted(ctypes.Structure):
    """glibc's ``mallinfo2``, of which two numbers are of interest: allocated in its heaps, and
    outside of them."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]  # fmt: skip


def in_use() -> float:
    """What of the memory is in use, MiB; the rest is free, and lies between that."""
    gc.collect()
    count = ctypes.CDLL(None).mallinfo2
    count.restype = Counted
    found = count()
    return (found.uordblks + found.hblkhd) / 2**20


def memory(count: int = 1000) -> str:
    """The resident memory over a thousand explanations, no two of them of the same photo."""
    seen = []
    for i in explanations(count):
        seen.append(resident())
        if i % 100 == 99:
            print(i + 1, f"{seen[-1]:.0f} MiB", flush=True)
    figure = Figure(figsize=(8, 3), layout="constrained")
    axis = figure.subplots()
    axis.plot(range(1, count + 1), seen, color=COLOURS[2], linewidth=1)
    axis.set_ylim(0, max(seen) * 1.15)
    axis.set_xlabel("explanations")
    axis.set_ylabel("resident memory, MiB")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    figure.savefig(HERE / "memory.png", dpi=110)
    tenth = count // 10
    early, late = np.mean(seen[tenth : 2 * tenth]), np.mean(seen[-tenth:])
    slope = np.polyfit(np.arange(tenth, count), seen[tenth:], 1)[0] * 1000
    return (
        f"Over {count} explanations: {early:.0f} MiB on average from the {tenth}th to the "
        f"{2 * tenth}th, {late:.0f} MiB over the last {tenth}; the highest is {max(seen):.0f} MiB, "
        f"and a straight line through all after the first {tenth} rises by {slope:.1f} MiB in a "
        "thousand."
    )


def own() -> str:
    """What it costs to hold an explainer's first answer against the network's own."""
    torch.set_num_threads(1)
    rows = ["| network | `explain`, ms | of it the network's own answer | a kept explainer | "
            "largest difference of the logits, relative |", "|---|---|---|---|---|"]  # fmt: skip
    for name in ("efficientnet-lite0", "torchvision:resnet50"):
        model = torchfbi.load(name, pretrained=":" not in name)
        x = torch.randn(1, 3, *model.preprocess.size, generator=torch.Generator().manual_seed(0))
        kept = ForwardBackward(model.module, x)
        logits, right = kept(x, 0)[1], answer(model.module, x, None)
        whole, alone, walk = (
            milliseconds(work)
            for work in (
                lambda m=model, x=x: torchfbi.explain(m.module, x, 0),
                lambda m=model, x=x: answer(m.module, x, None),
                lambda kept=kept, x=x: kept(x, 0),
            )
        )
        off = ((logits - right).abs().max() / right.abs().max()).item()
        rows.append(f"| {name} | {whole:.0f} | {alone:.0f} | {walk:.0f} | {off:.1e} |")
        print(rows[-1], flush=True)
    return "\n".join(rows)


def milliseconds(work: Callable[[], object], times: int = 9) -> float:
    """The least time of the processor."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return 1000 * min(found)


EACH = 50
"""So often a network is explained in the soak, before the next takes its place."""


LONGEST = 3000.0
"""Seconds, after which the soak ends where the machine is too busy for all of it."""


def soak(count: int = 10_000) -> str:
    """The resident memory over ten thousand explanations, of changing sizes and networks."""
    generator, begin = torch.Generator().manual_seed(0), time.monotonic()
    seen, used = list[float](), list[float]()
    for i in range(count):
        if i % EACH == 0 and time.monotonic() - begin > LONGEST:
            break
        number = i // EACH
        if i % EACH == 0:
            torch.manual_seed(number)
            width, side = 4 + number % 13, 24 + number % 9
            layers: list[nn.Module] = [nn.Conv2d(3, width, 3), nn.ReLU()]
            for _ in range(number % 4):
                layers += [nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.SiLU()]
            head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
            network = nn.Sequential(*layers, *head).eval()
        x = torch.randn(1 + i % 3, 3, side, side + i % 2, generator=generator)
        torchfbi.explain(network, x, settings=("contrast", "paper")[i % 2])
        if i % EACH == EACH - 1:
            seen.append(resident())
            used.append(in_use())
            print(i + 1, f"{seen[-1]:.0f} MiB, {used[-1]:.1f} in use", flush=True)
    captures = 2 * len(seen)  # one for each size
    half = len(seen) // 2
    slopes = [
        1024 * np.polyfit(np.arange(half, len(seen)), mib[half:], 1)[0] / 2 for mib in (seen, used)
    ]
    rows = ("resident", seen), ("in use", used)
    lines = [
        f"{EACH * len(seen)} explanations of {len(seen)} networks, {captures} captures, in "
        f"{(time.monotonic() - begin) / 60:.0f} minutes; the rise is that of a straight line over "
        "the second half:",
        "",
        "| MiB | after the first network | half-way | at the end | rise, KiB a capture |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {mib[0]:.0f} | {mib[half]:.0f} | {mib[-1]:.0f} | {slope:.1f} |"
        for (name, mib), slope in zip(rows, slopes, strict=True)
    ]
    return "\n".join(lines)


def determinism() -> str:
    """How often an entry of the support changes with the batch size or the threads."""
    model = torchfbi.load()
    x = torch.stack([model.preprocess(Photo.read(path))[0] for path in PHOTOS])
    x = torch.cat([x, x.flip(3), x.flip(2)])
    rows = ["| preset | what changes | pixels of the support that differ | largest difference of "
            "values, relative to the largest value |", "|---|---|---|---|"]  # fmt: skip
    torch.set_num_threads(1)
    for name in ("contrast", "paper", "plain"):
        settings = Settings.paper(tau=0.0) if name == "paper" else Settings.from_preset(name)
        fbi = ForwardBackward(model.module, x[:1], settings)
        alone = torch.cat([fbi(one[None])[0] for one in x])
        again = torch.cat([fbi(one[None])[0] for one in x])
        batch = torch.cat([fbi(part)[0] for part in x.split(8)])
        torch.set_num_threads(2)
        threads = torch.cat([fbi(one[None])[0] for one in x])
        torch.set_num_threads(1)
        for what, other in (("nothing", again), ("batches of 8", batch), ("2 threads", threads)):
            rows.append(f"| {name} | {what} | {differences(alone, other, settings)} |")
            print(rows[-1], flush=True)
    return "\n".join(rows)


def differences(values: Tensor, other: Tensor, settings: Settings) -> str:
    if torch.equal(values, other):
        return "none, the same bytes | 0"
    support, theirs = (support_of_values(v, settings) for v in (values, other))
    flips = int((support != theirs).sum())
    largest = values.abs().flatten(1).amax(1)
    off = ((values - other).abs().flatten(1).amax(1) / largest).max().item()
    return f"{flips} of {int(support.sum())} | {off:.1e}"


MEASUREMENTS = {
    "signal": signal,
    "memory": memory,
    "own": own,
    "soak": soak,
    "determinism": determinism,
}


def main(parts: list[str]) -> None:
    """Measure the parts that are named, or all, and write what was found into the text."""
    for part in parts or MEASUREMENTS:
        fill(HERE / "reliability.md", part, MEASUREMENTS[part]())


if __name__ == "__main__":
    main(sys.argv[1:])
