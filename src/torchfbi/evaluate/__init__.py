"""Attribution methods judged by metrics, and drawn side by side.

>>> from torchfbi.evaluate.benchmark import load_suite
>>> from torchfbi.evaluate import evaluate, report
>>> suite = load_suite("cutouts", "efficientnet-lite0", count=20)
>>> table = evaluate(suite, ["fbi", "grad-cam", "edge"], out="results")
>>> table.save("results"), report.save(table, "results/report.html")
"""

from torchfbi.evaluate.compare import Comparison, compare
from torchfbi.evaluate.metric import Metric
from torchfbi.evaluate.registry import METRICS
from torchfbi.evaluate.results import Failure
from torchfbi.evaluate.run import DEFAULT_METHODS, Progress, evaluate
from torchfbi.evaluate.table import Entry, Table

__all__ = [
    "DEFAULT_METHODS",
    "METRICS",
    "Comparison",
    "Entry",
    "Failure",
    "Metric",
    "Progress",
    "Table",
    "compare",
    "evaluate",
]
