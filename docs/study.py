"""The tables of docs/study.md, measured on a folder of photos: ``python docs/study.py PHOTOS``.

Photos are called as ImageNet's or lie in class folders (see ``benchmark.photos``). Only
numbers go into the text. Whatever is finished is kept in ``fbi-out/study``: a stopped call goes on
there. Parts that need a network whose package is missing are left as they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from marks import fill
from torchfbi import Settings, load
from torchfbi.errors import ModelError
from torchfbi.evaluate import Progress, Table, evaluate
from torchfbi.evaluate.benchmark import Suite, grids, load_suite, photos
from torchfbi.evaluate.peers import Method, find, scores
from torchfbi.evaluate.ranking import ranking
from torchfbi.evaluate.record import Record, header
from torchfbi.explanation.verifying import Asked, verify_maps
from torchfbi.metrics import bootstrap_interval

PAGE = Path(__file__).parent / "study.md"
BEFORE = Path(__file__).parent / "study-before.json"
OUT = Path("fbi-out") / "study"

COUNT, FEW, SEED = 48, 16, 0
"""Photos or scenes of a network, and those on which the slower metrics are measured."""

GRIDS, OBJECT_GRIDS = 6, 4
"""Grids of 2 x 2 photos, and of 2 x 2 cut-outs, of each of which two cells are asked for."""

NETWORKS = ("efficientnet-lite0", "efficientnet-lite1", "vgg16-distilled")
OWN = ("digits", "synthetic")
"""Suites that bring their network and masks."""

PAPER = replace(find(Settings.paper(tau=0.0, k=1.0)), name="paper, τ 0, k 100 %")

METHODS: list[str | Method] = [
    "fbi",
    PAPER,
    *("gradient", "input-x-gradient", "integrated-gradients", "smoothgrad-squared", "deeplift"),
    *("guided-backprop", "rectgrad", "grad-cam", "layer-cam", "finer-cam"),
    *("captum-lrp", "zennit-epsilon-plus-flat", "zennit-epsilon-gamma-box"),
    "contrastive-excitation-backprop",
    *("random", "centre", "edge", "edge-x-gate", "fbi-other-class", "fbi-random-head"),
]
SLOW: list[str | Method] = ["occlusion", "rise", "oracle"]
"""Hundreds of passes an image: measured on the first ``FEW`` photos alone."""

HEADLINE = ("srg", "srg-blur", "srg-mean", "kept-10")
DETAILS = (
    *("srg", "srg-slic25", "srg-slic100", "srg-slic500", "srg-road", "single-deletion"),
    *("support-kept", "support-removed", "support-fraction"),
)
SANITY = ("class-correlation", "head-randomisation")
PLACE = ("energy-in-mask", "top-area", "pointing")
IN_GRIDS = ("contrastive-srg", "grid-cell", "grid-object")

VERIFIED = 30
"""Photos on which each map is put to the test."""

CLAIMS = (
    *("fbi", "grad-cam", "layer-cam", "finer-cam", "zennit-epsilon-plus-flat"),
    *("smoothgrad-squared", "contrastive-excitation-backprop", "guided-backprop"),
    *("integrated-gradients", "occlusion", "random", "edge", "centre"),
)

RULINGS = ("holds", "holds in part", "does not hold")

Row = list[str]


class Study:
    """One call: which photos, how many, and where results are kept."""

    def __init__(self, folder: Path, count: int, methods: list[str | Method]) -> None:
        self.folder, self.count, self.methods = folder, count, methods
        self._photos: dict[str, Suite] = {}

    def headline(self, network: str) -> str:
        """Symmetric relevance gain on all photos, and how far ours is ahead."""
        suite = self.photos(network)
        table = self.measure(f"{network}/photos", suite, self.methods, HEADLINE)
        rows = [["", "SRG", "ours is ahead by", "blur", "mean colour", "kept 10 %"]]
        rows.append(["---"] * len(rows[0]))
        for ranked in ranking(table, suite.name, "srg"):
            ahead = "" if ranked.ahead is None else "{:.2f} [{:.2f}, {:.2f}]".format(*ranked.ahead)
            rest = [self.number(table, suite, ranked.method, name) for name in HEADLINE[1:]]
            rows.append([styled(ranked.method), f"**{ranked.entry.mean:.2f}**", ahead, *rest])
        rows += before(network, HEADLINE)
        return f"{suite.description}\n\n{as_table([*rows, *failures(table)])}"

    def details(self, network: str) -> str:
        """Superpixels, single deletion, the support alone and sanity on a few photos."""
        few = self.few(network)
        tables = [
            self.measure(f"{network}/few", few, self.methods, (*DETAILS, *SANITY)),
            self.measure(f"{network}/few", few, SLOW, DETAILS),
        ]
        last = before(network, (*DETAILS, *SANITY), FEW)
        return markdown([(table, few) for table in tables], last)

    def grids(self, network: str) -> str:
        """Which of four photos is it? And, with cut-outs, which object?"""
        tiles = self.photos(network)
        together = grids(tiles.model, 2, GRIDS, SEED, tiles=tiles.scenes)
        alone = load_suite("cutouts", tiles.model, FEW, 1)
        objects = grids(tiles.model, 2, OBJECT_GRIDS, 1, tiles=alone.scenes)
        measured = [
            (self.measure(f"{network}/{where}", suite, self.methods, names), suite)
            for where, suite, names in (
                ("photo-grids", together, IN_GRIDS[:2]),
                ("object-grids", objects, IN_GRIDS[2:]),
                ("cutouts", alone, PLACE),
            )
        ]
        names = (*IN_GRIDS, *PLACE)
        return side_by_side(measured, before(network, names))

    def verdicts(self, network: str) -> str:
        """How often maps hold when they are tested, each as an array of unknown origin, and how
        large the parts are that suffice."""
        suite = self.photos(network)
        suite = replace(suite, scenes=suite.scenes[:VERIFIED])
        record = Record(OUT / network / "verdicts.jsonl", header((suite,), SEED))
        found = {(row["method"], row["photo"]): row["verdict"] for row in record.rows}
        rows = [["", *RULINGS, "suffices", "untrimmed", "for 90 %", "control / p"]]
        rows.append(["---"] * len(rows[0]))
        for name in CLAIMS:
            method = find(name)
            for scene in suite.scenes:
                if (name, scene.name) not in found:
                    x, target = scene.x[None], torch.tensor([scene.target])
                    ranks = scores(method, suite.model.module, x, target, SEED)
                    (verdict,) = verify_maps(Asked(suite.model.module, x), ranks, target, str)
                    found[name, scene.name] = verdict.to_dict()
                    row = {"method": name, "photo": scene.name, "verdict": found[name, scene.name]}
                    record.append(row)
                    print(f"\rverdicts {name} {scene.name:60.60}", end="", flush=True)
            each = [found[name, scene.name] for scene in suite.scenes]
            count = [str([one["ruling"] for one in each].count(ruling)) for ruling in RULINGS]
            each = [one for one in each if one["sufficient"]]  # all whose class can be taken away
            shares = [
                f"{statistics.median(one[part]['share'] for one in each):.2f}"
                for part in ("sufficient", "claimed", "most")
            ]
            control = statistics.median(
                max(one["control"]["probabilities"].values()) / one["probability"] for one in each
            )
            rows.append([styled(method), *count, *shares, f"{control:.2f}"])
        return as_table(rows)

    def own(self, name: str) -> str:
        """A suite that brings its network, with everything that applies to it."""
        suite = load_suite(name, count=self.count, seed=SEED)
        metrics = (*PLACE, *HEADLINE, "single-deletion", *SANITY, "support-fraction")
        methods = [*self.methods, *SLOW]
        return markdown([(self.measure(name, suite, methods, metrics), suite)], [])

    def photos(self, network: str) -> Suite:
        """The photos of a network, the same in every call."""
        if network not in self._photos:
            self._photos[network] = photos(self.folder, load(network), self.count, SEED)
        return self._photos[network]

    def few(self, network: str) -> Suite:
        """The first of them."""
        suite = self.photos(network)
        return replace(suite, name="few photos", scenes=suite.scenes[:FEW])

    def measure(
        self, where: str, suite: Suite, methods: list[str | Method], metrics: tuple[str, ...]
    ) -> Table:
        """Evaluate, with the time that is left on the terminal."""
        began = time.monotonic()

        def show(step: Progress) -> None:
            spent = time.monotonic() - began
            left = spent / step.done * (step.total - step.done) if step.done else 0
            words = f"{where} {step.done}/{step.total} {step.method} {step.metric}"
            print(f"\r{words:90.90}{left / 60:5.0f} min left", end="", flush=True)

        table = evaluate(suite, methods, metrics, OUT / where, show, seed=SEED)
        print()
        return table

    @staticmethod
    def number(table: Table, suite: Suite, method: Method, metric: str) -> str:
        """One mean."""
        entry = table.entry(suite.name, method.name, metric)
        return "failed" if entry.error else f"{entry.mean:.2f}"


def before(network: str, metrics: tuple[str, ...], first: int | None = None) -> list[Row]:
    """The row of the default before, by the same protocol on the same photos; empty where it was
    not measured. The headline has a column more; ``first`` scenes count, or all.
    """
    known = json.loads(BEFORE.read_text())["networks"].get(network, {})
    if not any(name in known for name in metrics):
        return []
    means = {
        name: bootstrap_interval([v for v in values[:first] if v is not None]).mean
        for name, values in known.items()
    }
    cells = [f"{means[name]:.2f}" if name in means else "" for name in metrics]
    if metrics == HEADLINE:
        cells.insert(1, "")
    return [["the default before", *cells]]


def failures(table: Table) -> list[Row]:
    """A row for each method that cannot explain the network."""
    return [[failure.method, f"failed: {failure.error}"] for failure in table.failures]


def markdown(measured: list[tuple[Table, Suite]], last: list[Row]) -> str:
    """A row a method, a column a metric of the first table; empty where it was not measured."""
    table, suite = measured[0]
    columns = table.columns(suite.name)
    rows = [["", *(metric.title.lower() for metric in columns)]]
    rows.append(["---"] * len(rows[0]))
    for found, where in measured:
        for method in found.methods:
            row = [styled(method)]
            for metric in columns:
                entry = found.entries.get((where.name, method.name, metric.name))
                known = entry is not None and entry.scenes
                row.append(f"{entry.mean:.2f}" if known else "")  # type: ignore[union-attr]
            rows.append(row)
    return as_table([*rows, *last])


def side_by_side(measured: list[tuple[Table, Suite]], last: list[Row]) -> str:
    """A row a method, the metrics of all tables beside each other."""
    columns = [(t, s, metric) for t, s in measured for metric in t.columns(s.name)]
    rows = [["", *(metric.title.lower() for _, _, metric in columns)]]
    rows.append(["---"] * len(rows[0]))
    for method in measured[0][0].methods:
        row = [styled(method)]
        for table, suite, metric in columns:
            entry = table.entry(suite.name, method.name, metric.name)
            row.append(f"{entry.mean:.2f}" if entry.scenes else "")
        rows.append(row)
    return as_table([*rows, *last])


def styled(method: Method) -> str:
    """Controls in italics."""
    return f"*{method.name}*" if method.family == "control" else method.name


def as_table(rows: list[Row]) -> str:
    """Rows of cells as Markdown."""
    width = len(rows[0])
    return "\n".join(f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in rows)


def parts(study: Study) -> dict[str, Callable[[], str]]:
    """What can be measured, by the marks in the text."""
    found: dict[str, Callable[[], str]] = {}
    for network in NETWORKS:
        for kind in (study.headline, study.details, study.grids):
            found[f"{network} {kind.__name__}"] = lambda kind=kind, n=network: kind(n)
    found["verdicts"] = lambda: study.verdicts(NETWORKS[0])
    return found | {name: lambda name=name: study.own(name) for name in OWN}


def main() -> None:
    """Measure the parts that are named, or all, and write their tables into the text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("parts", nargs="*", help="by default all")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--methods", nargs="*", help="by default all")
    asked = parser.parse_args()
    known = {m if isinstance(m, str) else m.name: m for m in METHODS}
    methods = [known.get(name, name) for name in asked.methods] if asked.methods else METHODS
    available = parts(Study(asked.photos, asked.count, methods))
    for name in asked.parts or available:
        try:
            fill(PAGE, name, available[name]())
        except ModelError as error:
            print(f"{name}: left out: {error}")


if __name__ == "__main__":
    main()
