"""Make docs/performance.json and docs/performance.png: ``python docs/performance.py``.

The table of docs/performance.md, on the machine at hand: every network at batch 1 and 8, ours
against the forward pass and Captum's methods, in turn in one process. A quiet machine is needed;
it takes about ten minutes on two cores.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torchfbi import plot
from torchfbi.bench.cases import Case
from torchfbi.bench.machine import machine
from torchfbi.bench.results import to_dict
from torchfbi.bench.run import run
from torchfbi.cli.bench import MODELS
from torchfbi.plot.bench import bench_figure

HERE = Path(__file__).parent


def main(repeats: int) -> None:
    """Measure, write both files, and print the table in Markdown."""
    facts = machine()
    cases = [Case(name, batch) for name in MODELS.split(",") for batch in (1, 8)]
    results = [run(case, repeats, peers=True) for case in cases]
    measured = json.dumps(to_dict(facts, results), indent=1)
    (HERE / "performance.json").write_text(measured, encoding="utf-8")
    summary = f"{facts['cpu']}, {facts['threads']} of {facts['cores']} cores"
    plot.save(bench_figure(results, summary), HERE / "performance.png")
    names = [row.name for row in results[0].rows]
    print(f"{summary}; load before: {facts['load']}\n")
    print("| |", " | ".join(names), "|\n|---|", " | ".join(["---"] * len(names)), "|")
    for result in results:
        rows = {row.name: row for row in result.rows}
        cells = [
            "" if rows[name].ratio is None else f"{rows[name].ratio.median:.2f}" for name in names
        ]
        print(f"| {result.title} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
