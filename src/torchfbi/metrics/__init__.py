"""What maps are worth: pure functions of a batch of maps, one float64 number a sample, (N,).

A map (N, H, W) is larger where there is more evidence; metrics of sums and areas take maps >= 0,
those of orders signed ones too, negative where pixels speak against the class. All metrics compute
in float64 on the CPU; NaN stands only where a metric is not defined for a sample, as its docstring
says.
"""

from torchfbi.metrics.bootstrap import Interval, bootstrap_difference, bootstrap_interval
from torchfbi.metrics.gain import Curves, gain_curves, symmetric_relevance_gain
from torchfbi.metrics.imputation import impute
from torchfbi.metrics.localisation import (
    energy_in_mask,
    grid_cell,
    pointing_game,
    top_area_in_mask,
)
from torchfbi.metrics.noise import fine_grain, isolated, total_variation
from torchfbi.metrics.perturbation import Alone, greedy_oracle, single_deletion, support_alone
from torchfbi.metrics.removal import removal
from torchfbi.metrics.sanity import cascade, class_correlation, max_sensitivity, randomise_head
from torchfbi.metrics.sparsity import gini, morans_i, support_fraction
from torchfbi.metrics.units import cells, patches, superpixels

__all__ = [
    "Alone",
    "Curves",
    "Interval",
    "bootstrap_difference",
    "bootstrap_interval",
    "cascade",
    "cells",
    "class_correlation",
    "energy_in_mask",
    "fine_grain",
    "gain_curves",
    "gini",
    "greedy_oracle",
    "grid_cell",
    "impute",
    "isolated",
    "max_sensitivity",
    "morans_i",
    "patches",
    "pointing_game",
    "randomise_head",
    "removal",
    "single_deletion",
    "superpixels",
    "support_alone",
    "support_fraction",
    "symmetric_relevance_gain",
    "top_area_in_mask",
    "total_variation",
]
