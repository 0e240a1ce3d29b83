"""What maps are worth: pure functions of a batch of maps, one float64 number a sample, (N,).

A map (N, H, W) is >= 0, larger where there is more evidence. All metrics compute in float64 on
the CPU; NaN stands only where a metric is not defined for a sample, as its docstring says.
"""

from torchfbi.metrics.bootstrap import Interval, bootstrap_difference, bootstrap_interval
from torchfbi.metrics.gain import Curves, gain_curves, symmetric_relevance_gain
from torchfbi.metrics.imputation import impute, road
from torchfbi.metrics.localisation import (
    energy_in_mask,
    grid_cell,
    pointing_game,
    top_area_in_mask,
)
from torchfbi.metrics.perturbation import deletion, insertion, patch_correlation
from torchfbi.metrics.removal import removal
from torchfbi.metrics.sanity import cascade, class_correlation, max_sensitivity, randomise_head
from torchfbi.metrics.sparsity import gini, morans_i, support_fraction
from torchfbi.metrics.units import cells, patches, superpixels

__all__ = [
    "Curves",
    "Interval",
    "bootstrap_difference",
    "bootstrap_interval",
    "cascade",
    "cells",
    "class_correlation",
    "deletion",
    "energy_in_mask",
    "gain_curves",
    "gini",
    "grid_cell",
    "impute",
    "insertion",
    "max_sensitivity",
    "morans_i",
    "patch_correlation",
    "patches",
    "pointing_game",
    "randomise_head",
    "removal",
    "road",
    "superpixels",
    "support_fraction",
    "symmetric_relevance_gain",
    "top_area_in_mask",
]
