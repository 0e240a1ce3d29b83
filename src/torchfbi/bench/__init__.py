"""What an explanation costs: the only place where anything is timed. It starts in ``run.run``."""

from torchfbi.bench.cases import Case
from torchfbi.bench.results import Result, Timing

__all__ = ["Case", "Result", "Timing"]
