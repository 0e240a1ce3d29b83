"""What maps are worth: pure functions of a batch of maps, one float64 number a sample, (N,).

A map (N, H, W) is >= 0, larger where there is more evidence. All metrics compute in float64 on
the CPU; NaN stands only where a metric is not defined for a sample, as its docstring says.
"""

from torchfbi.metrics.bootstrap import Interval, bootstrap_difference, bootstrap_interval
from torchfbi.metrics.imputation import impute, road
from torchfbi.metrics.localisation import (
    energy_in_mask,
    grid_cell,
    pointing_game,
    top_area_in_mask,
)
from torchfbi.metrics.noise import fine_grain, isolated, total_variation
from torchfbi.metrics.perturbation import deletion, insertion, patch_correlation
from torchfbi.metrics.sanity import cascade, class_correlation, max_sensitivity, randomise_head
from torchfbi.metrics.sparsity import gini, morans_i, support_fraction

__all__ = [
    "Interval",
    "bootstrap_difference",
    "bootstrap_interval",
    "cascade",
    "class_correlation",
    "deletion",
    "energy_in_mask",
    "fine_grain",
    "gini",
    "grid_cell",
    "impute",
    "insertion",
    "isolated",
    "max_sensitivity",
    "morans_i",
    "patch_correlation",
    "pointing_game",
    "randomise_head",
    "road",
    "support_fraction",
    "top_area_in_mask",
    "total_variation",
]
