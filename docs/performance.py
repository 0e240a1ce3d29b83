"""Make docs/performance.json, performance.png and growth.png: ``python docs/performance.py``.

On the machine at hand, which must be quiet: every network at batch 1 and 8, ours against the
forward pass and Captum's methods, in turn in one process; five targets against one; the time to
capture; agreement of bfloat16 with float32; and time and memory against pixels and batch. About a
quarter of an hour on two cores; ``--small`` tries everything on little in a minute. What is done
is written at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import skimage
from matplotlib.figure import Figure

from torchfbi import plot
from torchfbi.bench.cases import Case, build
from torchfbi.bench.contenders import LOW_MEMORY, MAKERS, SETTINGS
from torchfbi.bench.machine import machine
from torchfbi.bench.measure import measure, spread
from torchfbi.bench.memory import in_a_process
from torchfbi.bench.results import to_dict
from torchfbi.bench.run import capture_seconds, run
from torchfbi.cli.bench import MODELS
from torchfbi.metrics.ranks import spearman
from torchfbi.plot.bench import bench_figure
from torchfbi.walk import ForwardBackward

HERE = Path(__file__).parent
CAPTURED = ("torchvision:resnet50", "torchvision:densenet201")
GROWING = ("torchvision:resnet18", "torchvision:mobilenet_v2")
NAMES = ("FBI, contrast", LOW_MEMORY)
MOST_GIB = 8.0
"""A size is left out where the one before lets expect more memory."""


def targets(model: str, repeats: int) -> dict[str, Any]:
    """Five targets of one image against one: measured, and what five walks in turn would be."""
    task = build(Case(model))
    row: dict[str, Any] = {"model": model}
    for name, settings in SETTINGS.items():
        fbi = ForwardBackward(task.module, task.x, settings)
        calls = {
            "forward": lambda fbi=fbi: fbi._see(task.x),
            "one": lambda fbi=fbi: fbi(task.x, 0),
            "five": lambda fbi=fbi: fbi.each(task.x, range(5)),
        }
        seconds = {key: spread(s).median for key, s in measure(calls, repeats).items()}
        share = seconds["forward"] / seconds["one"]
        row[name] = {
            "five": seconds["five"] / seconds["one"],
            "forward share": share,
            "in turn": share + 5 * (1 - share),
        }
    return row


def agreement(model: str, photo: str | None = None) -> dict[str, Any]:
    """Of bfloat16 with float32: the supports' intersection over union, Spearman's correlation."""
    row: dict[str, Any] = {"model": model, "photo": photo}
    image = None if photo is None else Path(skimage.data_dir, photo)
    cases = [Case(model, dtype=dtype, image=image) for dtype in ("float32", "bfloat16")]
    exact, half = map(build, cases)
    for name, settings in SETTINGS.items():
        both = [
            ForwardBackward(task.module, task.x, settings)(task.x, exact.target)[0].float()
            for task in (exact, half)
        ]
        one, other = (values.abs().sum(1).flatten() for values in both)
        shared, either = (one > 0) & (other > 0), (one > 0) | (other > 0)
        row[name] = {
            "support IoU": float(shared.sum() / either.sum().clamp(min=1)),
            "rank correlation": float(spearman(one[None], other[None])),
        }
    return row


def growth(model: str, cases: Sequence[Case], threads: int) -> list[dict[str, Any]]:
    """Seconds and peak memory of each case."""
    rows: list[dict[str, Any]] = []
    per_pixel: dict[str, float] = {}
    for case in cases:
        pixels = case.batch * (case.size or 224) ** 2
        for name in NAMES:
            if per_pixel.get(name, 0) * pixels > MOST_GIB * 2**30:
                continue
            memory = in_a_process(case, name, threads)
            task = build(case)
            calls = {"forward": MAKERS["forward"](task), name: MAKERS[name](task)}
            large = pixels > 1024**2
            times = measure(calls, 1 if large else 3, warmup=0 if large else 1)
            per_pixel[name] = 0 if memory is None else memory.peak / pixels
            row = {"model": model, "pixels": pixels, "batch": case.batch, "name": name}
            seconds = {key: spread(s).median for key, s in times.items()}
            peak = None if memory is None else memory.peak - memory.held
            rows.append({**row, "seconds": seconds[name], "forward": seconds["forward"],
                         "peak": peak})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def growth_figure(rows: list[dict[str, Any]]) -> Figure:
    """Memory against pixels, time against pixels, time against batch; a line that is linear."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    wanted = (("peak", "peak memory, MiB", 2**20, "pixels"), ("seconds", "seconds", 1, "pixels"),
              ("seconds", "seconds", 1, "batch"))  # fmt: skip
    for axes, (value, label, unit, along) in zip(panels, wanted, strict=True):
        for model in GROWING:
            for name, style in zip(NAMES, ("o-", "s--"), strict=True):
                chosen = [
                    r
                    for r in rows
                    if (r["model"], r["name"], r["along"]) == (model, name, along) and r[value]
                ]
                if not chosen or (along == "batch" and name == LOW_MEMORY):
                    continue
                x = [r[along] for r in chosen]
                y = [r[value] / unit for r in chosen]
                axes.loglog(x, y, style, label=f"{model.partition(':')[2]}, {name[5:]}")
                if name == NAMES[0]:
                    axes.loglog(x, [y[-1] * n / x[-1] for n in x], color="0.75", zorder=0)
        axes.set_xlabel("pixels" if along == "pixels" else "images of 224 x 224")
        axes.set_ylabel(label)
        axes.legend(fontsize=8)
    figure.suptitle("Growth of one explanation, contrast preset; grey: linear")
    return figure


def main() -> None:
    """Measure, write the files, and print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="try it on little")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    facts = machine()
    models = ["torchvision:squeezenet1_1"] if given.small else MODELS.split(",")
    measured: dict[str, Any] = {}

    def write(**more: Any) -> None:
        measured.update(more)
        text = json.dumps(measured)
        (given.out / "performance.json").write_text(text, encoding="utf-8")

    results = []
    summary = f"{facts['cpu']}, {facts['threads']} of {facts['cores']} cores"
    for case in [Case(name, batch) for name in models for batch in (1, 8)]:
        results.append(run(case, given.repeats, peers=True))
        write(**to_dict(facts, results))
    plot.save(bench_figure(results, summary), given.out / "performance.png")
    names = [row.name for row in results[0].rows]
    print(f"{summary}; load before: {facts['load']}\n")
    print("| |", " | ".join(names), "|\n|---|", " | ".join(["---"] * len(names)), "|")
    for result in results:
        rows = {row.name: row for row in result.rows}
        cells = [
            "" if rows[name].ratio is None else f"{rows[name].ratio.median:.2f}" for name in names
        ]
        print(f"| {result.title} |", " | ".join(cells), "|", flush=True)
        peaks = {n: r.memory.peak // 2**20 for n, r in rows.items() if r.memory is not None}
        print(f"| peak MiB above the network |{' | '.join(str(peaks.get(n, '')) for n in names)}|")
    write(targets=[targets(model, given.repeats) for model in models])
    print(json.dumps(measured["targets"], indent=1), flush=True)
    captured = models if given.small else CAPTURED
    write(capture={model: capture_seconds(build(Case(model)))[0] for model in captured})
    print(json.dumps(measured["capture"], indent=1), flush=True)
    photos = [agreement("efficientnet-lite0", name) for name in ("chelsea.png", "coffee.png")]
    write(bfloat16=[*photos, *(agreement(model) for model in models[:2])])
    print(json.dumps(measured["bfloat16"], indent=1), flush=True)
    sizes = (224, 320) if given.small else (224, 512, 1024, 2048, 4096)
    batches = (1, 2) if given.small else (1, 2, 4, 8, 16)
    grown: list[dict[str, Any]] = []
    for model in GROWING:
        along = {
            "pixels": [Case(model, size=size) for size in sizes],
            "batch": [Case(model, batch) for batch in batches],
        }
        for which, cases in along.items():
            for row in growth(model, cases, facts["threads"]):
                grown.append({**row, "along": which})
                write(growth=grown)
    plot.save(growth_figure(grown), given.out / "growth.png")


if __name__ == "__main__":
    main()
