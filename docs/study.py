"""The tables of docs/study.md: ``make study`` measures them again (an hour on two cores)."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from marks import fill

from photos import SHIPPED
from torchfbi import ForwardBackward, Settings, load
from torchfbi.benchmark import Suite, load_suite
from torchfbi.benchmark.grids import grids
from torchfbi.evaluate import Table, evaluate
from torchfbi.images import Photo
from torchfbi.models.untrained import untrained
from torchfbi.peers import Method, find

PAGE = Path(__file__).parent / "study.md"
OUT = Path("fbi-out") / "study"

CUTOUTS, GRIDS, SEED = 16, 4, 1
OTHER_SEEDS = 11, 12, 13
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
GOALS = (
    ("energy-in-mask", "≥ .92"),
    ("top-area", "≥ .80"),
    ("pointing", "≥ .98"),
    ("grid-cell", "≥ .98"),
    ("grid-object", "≥ .92"),
    ("class-correlation", "-.05 to .05"),
    ("head-randomisation", "≤ .35"),
    ("support-fraction", ".03 to .15"),
    ("morans-i", "≥ .75"),
)
ROUNDING = 3e-7
NETWORKS = (
    "efficientnet-lite0",
    "digits",
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "torchvision:densenet121",
    "torchvision:efficientnet_b0",
    "torchvision:vgg11",
)

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


contrast, paper = Settings.contrast, Settings.paper
HARD = contrast(threshold="mass:0.9", shrink=False)
PRESETS = {
    "contrast, the default": contrast(),
    "mass 0.96, image 0.97": contrast(threshold="mass:0.96", image_threshold="mass:0.97"),
    "threshold not soft, mass 0.9": HARD,
    "shows the contribution": contrast(values="contribution"),
    "not anti-aliased": contrast(antialias=False),
    "not placed": contrast(place_gate=None, place_power=0.0),
    "place_power 1": contrast(place_power=1.0),
    "the image not selected": contrast(image_threshold=None),
    "image mean 0.1": contrast(image_threshold="mean:0.1"),
    "image mean 0.4": contrast(image_threshold="mean:0.4"),
    "mean 0.1": contrast(threshold="mean:0.1"),
    "mean 0.5": contrast(threshold="mean:0.5"),
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


def goals() -> str:
    """The default on the composites and grids of several seeds, a column each."""
    network = load("efficientnet-lite0")
    columns = []
    for seed in (SEED, *OTHER_SEEDS):
        alone = load_suite("cutouts", network, CUTOUTS, seed)
        together = grids(network, 2, GRIDS, seed, tiles=alone.scenes)
        means = {}
        for suite in (alone, together):
            names = [name for name, _ in GOALS if (name in IN_GRIDS) == (suite is together)]
            out = OUT / f"goals{seed}" / suite.name
            table = evaluate(suite, [find("fbi")], names, out)
            means |= {name: table.entry(suite.name, "fbi", name).mean for name in names}
        columns.append(means)
    head = ["", "goal", *(f"seed {seed}" for seed in (SEED, *OTHER_SEEDS))]
    rows = [[name, goal, *(f"{c[name]:.2f}" for c in columns)] for name, goal in GOALS]
    return as_table([head, ["---"] * len(head), *rows])


def pooling() -> str:
    """The three adjoints of max pooling on networks that have it, a table each."""
    suites = [load_suite(name, count=CUTOUTS, seed=SEED) for name in ("synthetic", "digits")]
    table = evaluate(suites, variants(POOLINGS), ALONE[:6], OUT / "pooling")
    return "\n\n".join(f"{suite.name}\n\n{markdown([table], [suite])}" for suite in suites)


def peers() -> str:
    """The default against every peer and control."""
    return on_composites("peers", [find(name) for name in PEERS])


def presets() -> str:
    """The default against other settings, and the paper's."""
    return on_composites("presets", variants(PRESETS))


def on_composites(part: str, methods: list[Method]) -> str:
    """The methods on the composites and on grids of them."""
    network = load("efficientnet-lite0")
    alone = load_suite("cutouts", network, CUTOUTS, SEED)
    together = grids(network, 2, GRIDS, SEED, tiles=alone.scenes)
    tables = [
        evaluate(alone, methods, ALONE, OUT / part / "cutouts"),
        evaluate(together, methods, IN_GRIDS, OUT / part / "grids2"),
    ]
    return markdown(tables, [alone, together])


def roundings() -> str:
    """How much of an explanation depends on the last bits of the image."""
    network = load("efficientnet-lite0")
    scenes = load_suite("cutouts", network, CUTOUTS, SEED).scenes
    rows = [["threshold", "scenes whose support moves", "pixels, at most", "values, at most"]]
    rows.append(["---"] * 4)
    random = torch.Generator().manual_seed(0)
    for name, settings in (
        ("soft, mean 0.25", contrast()),
        ("soft, mass 0.96", contrast(threshold="mass:0.96")),
        ("hard, mass 0.9", HARD),
    ):
        walker, moved, change = None, [], []
        for scene in scenes:
            x = scene.x[None]
            walker = walker or ForwardBackward(network.module, x, settings)
            noise = 1 + ROUNDING * torch.randn(x.shape, generator=random)
            one, other = (walker(image, scene.target)[0] for image in (x, x * noise))
            moved.append(int(((one != 0).any(1) != (other != 0).any(1)).sum()))
            change.append(((one - other).abs().sum() / one.abs().sum()).item())
        count = f"{sum(map(bool, moved))} of {len(moved)}"
        rows.append([name, count, str(max(moved)), f"{max(change):.0e}"])
    return as_table(rows)


def kept() -> str:
    """How much of a feature's contribution exceeds the default's threshold, in several networks."""
    settings = contrast()
    assert settings.threshold is not None
    rows = [["network", "features", "least", "median", "most", "image"]]
    rows.append(["---"] * len(rows[0]))
    for name in NETWORKS:
        model, shares, image = untrained(name) if ":" in name else load(name), [], []
        for path in SHIPPED:
            x = model.preprocess(Photo.read(path))[0][None]
            for layer in ForwardBackward(model.module, x, settings).flow(x)[2]:
                at_image = layer.layer == "image"
                s = layer.incoming.abs()
                p = s.sum(1) if at_image else s * layer.activation.abs()
                share = (p[p > settings.threshold.value * p[p > 0].mean()].sum() / p.sum()).item()
                (image if at_image else shares).append(share)
        seen = sorted(shares)
        middle = seen[len(seen) // 2]
        numbers = [seen[0], middle, seen[-1], sum(image) / len(image)]
        rows.append([name, str(len(seen)), *(f"{number:.3f}" for number in numbers)])
    return as_table(rows)


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
    return as_table(rows)


def as_table(rows: list[list[str]]) -> str:
    """Rows of cells as Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


PARTS = {
    "goals": goals,
    "kept": kept,
    "roundings": roundings,
    "peers": peers,
    "presets": presets,
    "pooling": pooling,
}


def main(parts: list[str]) -> None:
    """Measure the parts that are named, or all, and write their tables into the text."""
    for part in parts or PARTS:
        fill(PAGE, part, PARTS[part]())


if __name__ == "__main__":
    main(sys.argv[1:])
