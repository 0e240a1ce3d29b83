"""The tables of docs/study.md: ``make study`` measures them again (an hour on two cores)."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from torchfbi import Settings, Threshold, load
from torchfbi.benchmark import Suite, load_suite
from torchfbi.benchmark.grids import grids
from torchfbi.evaluate import Table, evaluate
from torchfbi.peers import Method, find

HERE = Path(__file__).parent
OUT = Path("fbi-out") / "study"

CUTOUTS, GRIDS, SEED = 16, 4, 1
ALONE = (
    "energy-in-mask",
    "top-area",
    "rank-accuracy",
    "pointing",
    "class-correlation",
    "head-randomisation",
    "insertion-minus-deletion-10",
    "support-fraction",
    "morans-i",
)
IN_GRIDS = ("grid-cell", "grid-object")

PEERS = (
    "fbi",
    "guided-backprop",
    "rectgrad",
    "gradient",
    "input-x-gradient",
    "integrated-gradients",
    "grad-cam",
    "random",
    "centre",
    "edge",
    "gate",
    "edge-x-gate",
)


def mass(rho: float) -> Threshold:
    """The smallest set of entries that holds ``rho`` of the contributions."""
    return Threshold("mass", rho)


contrast, paper = Settings.contrast, Settings.paper
PRESETS = {
    "contrast, the default": contrast(),
    "shows the contribution": contrast(values="contribution"),
    "not anti-aliased": contrast(antialias=False),
    "not placed": contrast(place_gate=None, place_power=0.0),
    "place_power 1": contrast(place_power=1.0),
    "the image not selected": contrast(image_threshold=None),
    "image mass 0.9": contrast(image_threshold=mass(0.9)),
    "image mass 0.98": contrast(image_threshold=mass(0.98)),
    "mass 0.8": contrast(threshold=mass(0.8)),
    "mass 0.95": contrast(threshold=mass(0.95)),
    "seed one-hot": contrast(seed="one-hot"),
    "no evidence gate": contrast(evidence_gate=None, evidence_power=0.0),
    "k 50 % by contribution": contrast(k=0.5),
    "paper, tau 0, k 100 %": paper(tau=0.0, k=1.0),
    "paper, tau 0, k 50 %": paper(tau=0.0, k=0.5),
    "paper, tau 0, k 10 %": paper(tau=0.0, k=0.1),
}
POOLINGS = {
    f"{preset}, {pooling}": make(pooling=pooling, **changes)
    for preset, make, changes in (("contrast", contrast, {}), ("paper, tau 0", paper, {"tau": 0.0}))
    for pooling in ("proportional", "winner", "replicate")
}


def variants(settings: dict[str, Settings]) -> list[Method]:
    """Settings as methods, by the names that the tables give them."""
    return [replace(find(chosen), name=name) for name, chosen in settings.items()]


def main(parts: list[str]) -> None:
    """Measure the parts that are named, or all, and write their tables into the text."""
    for part in parts or ["peers", "presets", "pooling"]:
        if part == "pooling":
            suites = [
                load_suite(name, count=CUTOUTS, seed=SEED) for name in ("synthetic", "digits")
            ]
            table = evaluate(suites, variants(POOLINGS), ALONE[:6], OUT / part)
            write(part, "\n\n".join(f"{s.name}\n\n{markdown([table], [s])}" for s in suites))
            continue
        methods = variants(PRESETS) if part == "presets" else [find(name) for name in PEERS]
        network = load("efficientnet-lite0")
        alone = load_suite("cutouts", network, CUTOUTS, SEED)
        together = grids(network, 2, GRIDS, SEED, tiles=alone.scenes)
        tables = [
            evaluate(alone, methods, ALONE, OUT / part / "cutouts"),
            evaluate(together, methods, IN_GRIDS, OUT / part / "grids"),
        ]
        write(part, markdown(tables, [alone, together]))


def markdown(tables: list[Table], suites: list[Suite]) -> str:
    """A row a method, a column a metric, the best in bold, the half width of its interval."""
    pairs = [(table, suite) for table in tables for suite in table.suites if suite in suites]
    columns = [(t, suite.name, metric) for t, suite in pairs for metric in t.columns(suite.name)]
    head = ["", *(metric.title.lower() for _, _, metric in columns)]
    rows = [head, ["---"] * len(head)]
    for method in tables[0].methods:
        row = [f"*{method.name}*" if method.family == "control" else method.name]
        for table, suite, metric in columns:
            entry = table.entry(suite, method.name, metric.name)
            number = "failed" if entry.error else f"{entry.mean:.2f}"
            row.append(f"**{number}**" if entry.best else number)
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(part: str, table: str) -> None:
    """Put a table between its two marks in study.md."""
    path = HERE / "study.md"
    marks = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    pattern = re.compile(f"({re.escape(marks[0])}).*?({re.escape(marks[1])})", re.DOTALL)
    text, found = pattern.subn(lambda match: f"{match[1]}{table}\n{match[2]}", path.read_text())
    if not found:
        raise SystemExit(f"{path} has no marks for {part!r}.")
    path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
