"""The server under load. ``python docs/serve_load.py [SECONDS [CLIENTS]]``, two minutes and eight.

Starts ``torchfbi serve`` on the loopback and lets clients ask at once, without a pause: a
third of what they send is to be refused. Exits with 1 if anything else is answered than what is
expected.
"""

from __future__ import annotations

import io
import random
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from served import served
from torchfbi import plot
from torchfbi.plot.style import LIGHT, MARGIN, SMALL, Sheet
from torchfbi.web.examples import examples

HERE = Path(__file__).parent


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


PHOTOS = [jpeg(photo.pixels) for photo in examples().values()]
HUGE = io.BytesIO()
Image.new("1", (6000, 6000)).save(HUGE, "PNG")


def explained(client: httpx.Client) -> httpx.Response:
    """A photo with a random class, k and tau."""
    asked = {
        "target": str(random.randrange(1000)),
        "settings": f'{{"k": {random.uniform(0.1, 1)}, "tau": {random.uniform(0, 1e-3)}}}',
    }
    return client.post("api/explain", params=asked, content=random.choice(PHOTOS))


def with_files(client: httpx.Client) -> httpx.Response:
    """A photo, and then the arrays of its answer."""
    answer = client.post("api/explain", content=random.choice(PHOTOS))
    return client.get(answer.json()["files"]["npz"][1:]) if answer.is_success else answer


Ask = Callable[[httpx.Client], httpx.Response]

KINDS: dict[str, tuple[int, int, Ask]] = {
    # What is asked: how often, the expected status, how.
    "explain": (8, 200, explained),
    "explain and download": (3, 200, with_files),
    "load the page": (1, 200, lambda c: c.get("")),
    "no picture": (1, 400, lambda c: c.post("photo", content=b"no pixels" * 999)),
    "cut short": (1, 400, lambda c: c.post("photo", content=random.choice(PHOTOS)[:5000])),
    "too many pixels": (1, 400, lambda c: c.post("photo", content=HUGE.getvalue())),
    "too many bytes": (1, 413, lambda c: c.post("photo", content=bytes(21 * 2**20))),
    "no such class": (1, 400, lambda c: c.post("api/explain?target=xx", content=PHOTOS[0])),
    "a foreign host": (1, 400, lambda c: c.get("", headers={"host": "evil.example"})),
    "a file by its path": (1, 404, lambda c: c.get("static/..%2f..%2f/etc/passwd")),
}


class Load:
    """What was sent, and what came back."""

    def __init__(self, url: str, pid: int, seconds: float, clients: int) -> None:
        self.url, self.pid, self.clients = url, pid, clients
        self.start = time.monotonic()
        self.end = self.start + seconds
        self.answers: list[tuple[float, str, float]] = []  # when, what, how long
        self.memory: list[tuple[float, float]] = []  # when, MiB
        self.wrong: list[str] = []

    def run(self) -> None:
        """All clients at once."""
        threads = [threading.Thread(target=self._client, args=(i,)) for i in range(self.clients)]
        for thread in threads:
            thread.start()
        while time.monotonic() < self.end:
            self.memory.append((time.monotonic() - self.start, self._resident()))
            time.sleep(1)
        for thread in threads:
            thread.join()

    def _client(self, number: int) -> None:
        choose = random.Random(number)
        weights = [weight for weight, _, _ in KINDS.values()]
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while time.monotonic() < self.end:
                name = choose.choices(list(KINDS), weights)[0]
                _, expected, ask = KINDS[name]
                begin = time.monotonic()
                try:
                    status: object = ask(client).status_code
                except httpx.HTTPError as error:
                    status = repr(error)
                self.answers.append((begin - self.start, name, time.monotonic() - begin))
                if status != expected:
                    self.wrong.append(f"{name}: {status} instead of {expected}")

    def _resident(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return sum(map(int, re.findall(r"Vm(?:RSS|Swap):\s+(\d+) kB", status))) / 1024


def figure(load: Load) -> Figure:
    """Above, how long each answer took; below, the memory of the server."""
    sheet = Sheet(10, 5.2, dark=False)
    refused = sum(KINDS[name][1] != 200 for _, name, _ in load.answers)
    sheet.heading(
        f"torchfbi serve, {load.clients} clients at once",
        f"{len(load.answers)} requests in {load.end - load.start:.0f} s, {refused} of them refused "
        f"as intended, {len(load.wrong)} answered otherwise than expected",
    )
    above = _axes(sheet, 0.95, 2.4, "seconds until the answer", load)
    groups = {
        "explained": (LIGHT.accent, [a for a in load.answers if a[1].startswith("explain")]),
        "refused": ("#2166ac", [a for a in load.answers if KINDS[a[1]][1] != 200]),
        "the page": (LIGHT.muted, [a for a in load.answers if a[1] == "load the page"]),
    }
    for label, (colour, answers) in groups.items():
        above.scatter([a[0] for a in answers], [a[2] for a in answers], 9, colour, label=label)
    above.set_yscale("log")
    above.legend(loc="lower right", frameon=True, fontsize=SMALL, ncols=3)
    below = _axes(sheet, 3.65, 1.05, "MiB resident", load)
    below.plot(*zip(*load.memory, strict=True), color=LIGHT.accent)
    below.set_ylim(0, 1.25 * max(mib for _, mib in load.memory))
    below.set_xlabel("seconds", fontsize=SMALL, color=LIGHT.muted)
    return sheet.figure


def _axes(sheet: Sheet, top: float, height: float, label: str, load: Load):
    axes = sheet.panel(MARGIN + 0.65, top, sheet.width - 2 * MARGIN - 0.65, height, label)
    axes.set_axis_on()
    axes.set_xlim(0, load.end - load.start)
    axes.set_ylabel(label, fontsize=SMALL, color=LIGHT.muted)
    axes.tick_params(labelsize=SMALL, colors=LIGHT.muted)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def main(seconds: float = 120.0, clients: int = 8) -> int:
    with served() as (url, pid):
        load = Load(url, pid, seconds, clients)
        load.run()
    plot.save(figure(load), HERE / "serve-load.png", dpi=120)
    for name in KINDS:
        times = sorted(took for _, kind, took in load.answers if kind == name)
        if times:
            middle, late = statistics.median(times), times[int(0.95 * len(times))]
            print(f"{name:22} {len(times):5}  median {middle:7.3f} s  95 % {late:7.3f} s")
    half = [mib for when, mib in load.memory if when > seconds / 2]
    first = load.memory[0][1]
    print(f"MiB: {first:.0f} at first, {half[0]:.0f} at half-time, {half[-1]:.0f} at the end")
    for text in load.wrong[:20]:
        print("WRONG", text)
    return 1 if load.wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
