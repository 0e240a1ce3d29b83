"""Make docs/performance.json, performance.png and growth.png: ``python docs/performance.py``.

On the machine at hand, which must be quiet: every network at batch 1 and 8, ours against the
forward pass and Captum's methods, in turn in one process; the same in bfloat16, and its agreement
with float32; compiled ahead of time; five targets against one; the time to capture; and time and
memory against pixels and batch, which alone takes three quarters of an hour on two cores. ``python
docs/performance.py targets growth`` measures these parts again and keeps the others, each with the
machine that it was measured on; ``--small`` tries everything on little. What is done is written
at once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import skimage
from matplotlib.figure import Figure

from torchfbi import plot
from torchfbi.bench.cases import Case, DType, build
from torchfbi.bench.contenders import LOW_MEMORY, MAKERS, SETTINGS
from torchfbi.bench.machine import machine, processor
from torchfbi.bench.measure import measure, spread
from torchfbi.bench.memory import in_a_process
from torchfbi.bench.results import Result, Timing, to_dict
from torchfbi.bench.run import capture_seconds, run
from torchfbi.cli.bench import MODELS
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.evidence import of_values, support_of_values
from torchfbi.metrics.ranks import spearman
from torchfbi.plot.bench import bench_figure

HERE = Path(__file__).parent
CAPTURED = ("torchvision:resnet50", "torchvision:densenet201")
GROWING = ("torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:vgg16")
NAMES = ("FBI, contrast", LOW_MEMORY)
MOST_GIB = 14.0
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
        here, there = (support_of_values(values, settings) for values in both)
        shared, either = here & there, here | there
        one, other = (of_values(values, settings).flatten() for values in both)
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
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    panels = figure.subplots(1, 3)
    wanted = (("peak", "peak memory, MiB", 2**20, "pixels"), ("seconds", "seconds", 1, "pixels"),
              ("seconds", "seconds", 1, "batch"))  # fmt: skip
    for axes, (value, label, unit, along) in zip(panels, wanted, strict=True):
        for color, model in enumerate(GROWING):
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
                line = f"{model.partition(':')[2]}, {name[5:]}"
                axes.loglog(x, y, style, color=f"C{color}", label=line)
                if name == NAMES[0]:
                    axes.loglog(x, [y[-1] * n / x[-1] for n in x], color="0.75", zorder=0)
        axes.set_xlabel("pixels" if along == "pixels" else "images of 224 x 224")
        axes.set_ylabel(label)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(GROWING))
    figure.suptitle("Growth of one explanation, contrast preset; grey: linear")
    return figure


@dataclass(frozen=True)
class Given:
    """What the parts are measured with, and what was measured before."""

    models: list[str]
    captured: Sequence[str]
    sizes: Sequence[int]
    batches: Sequence[int]
    repeats: int
    facts: dict[str, Any]
    out: Path
    measured: dict[str, Any]

    def write(self, **more: Any) -> None:
        """Put it on disk, beside the other parts, with the machine it comes from."""
        machines = {**self.measured.get("machines", {}), **dict.fromkeys(more, self.facts)}
        self.measured.update(more, machines=machines)
        text = json.dumps(self.measured)
        (self.out / "performance.json").write_text(text, encoding="utf-8")


def table(
    given: Given, dtype: DType, models: Sequence[str], keep: Callable[[list[Result]], None]
) -> tuple[list[Result], str]:
    """Every network at batch 1 and 8, and its lines in Markdown. Each is kept when it is done."""
    results: list[Result] = []
    for case in [Case(name, batch, dtype=dtype) for name in models for batch in (1, 8)]:
        results.append(run(case, given.repeats, peers=True))
        keep(results)
    return results, as_table(dtype, results)


def as_table(title: str, results: list[Result]) -> str:
    """Ratios and memory in Markdown."""
    names = list(dict.fromkeys(row.name for result in results for row in result.rows))
    lines = [f"| {title} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for result in results:
        rows = {row.name: row for row in result.rows}
        seen = [rows.get(name, Timing(name)) for name in names]
        cells = ["" if row.ratio is None else f"{row.ratio.median:.2f}" for row in seen]
        lines.append(f"| {result.title} | {' | '.join(cells)} |")
        cells = ["" if row.memory is None else str(row.memory.peak // 2**20) for row in seen]
        lines.append(f"| peak MiB above the network | {' | '.join(cells)} |")
    return "\n".join(lines)


def float32(given: Given) -> str:
    """The main table, and its figure."""

    def keep(results: list[Result]) -> None:
        given.write(**to_dict(given.facts, results))

    results, lines = table(given, "float32", given.models, keep)
    summary = processor(given.facts)
    plot.save(bench_figure(results, summary), given.out / "performance.png")
    return f"{summary}; load before: {given.facts['load']}\n{lines}"


def bfloat16(given: Given) -> str:
    """Times against the forward pass in float32, and what becomes of the answer."""

    def keep(results: list[Result]) -> None:
        given.write(bfloat16_table=[result.to_dict() for result in results])

    _, lines = table(given, "bfloat16", given.models[:2], keep)
    photos = [agreement("efficientnet-lite0", name) for name in ("chelsea.png", "coffee.png")]
    agreed = [*photos, *(agreement(model) for model in given.models[:2])]
    given.write(bfloat16=agreed)
    return f"{lines}\n{json.dumps(agreed, indent=1)}"


def compiled(given: Given) -> str:
    """Compiled ahead of time, for one image."""
    results: list[Result] = []
    for name in given.models:
        for dtype in get_args(DType):
            results.append(run(Case(name, dtype=dtype), given.repeats, compiled=True))
            given.write(compiled=[result.to_dict() for result in results])
    return as_table("compiled", results)


def five(given: Given) -> str:
    """Five targets against one."""
    given.write(targets=[targets(model, given.repeats) for model in given.models])
    return json.dumps(given.measured["targets"], indent=1)


def captures(given: Given) -> str:
    """Seconds to capture."""
    given.write(capture={model: capture_seconds(build(Case(model)))[0] for model in given.captured})
    return json.dumps(given.measured["capture"], indent=1)


def grown(given: Given) -> str:
    """Seconds and memory against pixels and batch, and their figure."""
    rows: list[dict[str, Any]] = []
    for model in GROWING:
        along = {
            "pixels": [Case(model, size=size) for size in given.sizes],
            "batch": [Case(model, batch) for batch in given.batches],
        }
        for which, cases in along.items():
            for row in growth(model, cases, given.facts["threads"]):
                rows.append({**row, "along": which})
                given.write(growth=rows)
    plot.save(growth_figure(rows), given.out / "growth.png")
    return f"{len(rows)} rows"


PARTS: dict[str, Callable[[Given], str]] = {
    "float32": float32,
    "bfloat16": bfloat16,
    "compiled": compiled,
    "targets": five,
    "capture": captures,
    "growth": grown,
}


def main() -> None:
    """Measure, write the files, and print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="try it on little")
    parser.add_argument("--out", type=Path, default=HERE)
    told = parser.parse_args()
    before, small = told.out / "performance.json", "torchvision:squeezenet1_1"
    given = Given(
        models=[small] if told.small else MODELS.split(","),
        captured=[small] if told.small else CAPTURED,
        sizes=(224, 320) if told.small else (224, 512, 1024, 2048, 4096),
        batches=(1, 2) if told.small else (1, 2, 4, 8, 16),
        repeats=told.repeats,
        facts=machine(),
        out=told.out,
        measured=json.loads(before.read_text("utf-8")) if before.exists() else {},
    )
    for part in told.parts or PARTS:
        print(PARTS[part](given), flush=True)


if __name__ == "__main__":
    main()
