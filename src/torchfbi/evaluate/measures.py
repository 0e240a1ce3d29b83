"""The metrics by name: what each asks, what is good, and where it is defined."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial

from torchfbi import metrics
from torchfbi.errors import SettingsError
from torchfbi.evaluate import judging
from torchfbi.evaluate.judging import AREA, ROUNDS, STAGES, TOLERANCE, TOLERANCE_AT
from torchfbi.evaluate.metric import Metric

_PETSIUK = "Petsiuk et al. 2018 (RISE), section 4.2"
_ADEBAYO = "Adebayo et al. 2018, section 3"
_SHOWN = f"on the {AREA:.0%} of the pixels that the map ranks highest, never off its support"

_ALL = (
    Metric(
        "energy-in-mask",
        "Energy in mask",
        "higher",
        "mask off grids",
        "The share of the map's sum that lies on the object.",
        "Wang et al. 2020 (Score-CAM), energy-based pointing game; Arras et al. 2022",
        lambda c: metrics.energy_in_mask(c.maps, c.mask),
    ),
    Metric(
        "top-area",
        "Top area in mask",
        "higher",
        "mask",
        "Of as many highest pixels as the object has, or as the map's support where that is "
        "smaller, the share that lies on the object.",
        "Arras et al. 2022 (CLEVR-XAI), relevance rank accuracy; ending with the support is ours",
        lambda c: metrics.top_area_in_mask(c.maps, c.mask, fill=False),
    ),
    Metric(
        "rank-accuracy",
        "Rank accuracy",
        "higher",
        "mask",
        "The same, filled up with pixels at random where the support is smaller than the object.",
        "Arras et al. 2022 (CLEVR-XAI), relevance rank accuracy",
        lambda c: metrics.top_area_in_mask(c.maps, c.mask),
    ),
    Metric(
        "pointing",
        "Pointing game",
        "higher",
        "mask",
        f"Whether the map's maximum lies on the object, or at most {TOLERANCE} pixels of "
        f"{TOLERANCE_AT} beside it.",
        "Zhang et al. 2016 (excitation backprop)",
        judging.pointing,
    ),
    Metric(
        "grid-cell",
        "Energy in cell",
        "higher",
        "cell",
        "In a grid of images of different classes, the share of the map's sum in the cell of the "
        "class that was asked for.",
        "Böhle et al. 2021 (CoDA networks), section 4",
        lambda c: metrics.energy_in_mask(c.maps, c.cell),
    ),
    Metric(
        "grid-object",
        "Energy in object",
        "higher",
        "mask and cell",
        "The same within the cell: the share of the map's sum on the object itself.",
        "Böhle et al. 2021, with the object for its cell",
        lambda c: metrics.energy_in_mask(c.maps, c.mask),
    ),
    Metric(
        "insertion",
        "Insertion",
        "higher",
        "nothing",
        "The class's mean probability while pixels appear, highest first, on the blurred image.",
        _PETSIUK,
        lambda c: c.curve("insertion", None),
    ),
    Metric(
        "deletion",
        "Deletion",
        "lower",
        "nothing",
        "The class's mean probability while pixels are blurred, highest first.",
        _PETSIUK,
        lambda c: c.curve("deletion", None),
    ),
    Metric(
        "insertion-minus-deletion",
        "Insertion minus deletion",
        "higher",
        "nothing",
        "The difference of the two: what the map ranks first is both enough and needed.",
        _PETSIUK,
        partial(judging.difference, area=None),
    ),
    Metric(
        "insertion-10",
        "Insertion, 10 %",
        "higher",
        "nothing",
        f"Insertion {_SHOWN}: maps of any density compete with the same area.",
        f"{_PETSIUK}; the equal area is ours",
        lambda c: c.curve("insertion", AREA),
    ),
    Metric(
        "deletion-10",
        "Deletion, 10 %",
        "lower",
        "nothing",
        f"Deletion {_SHOWN}.",
        f"{_PETSIUK}; the equal area is ours",
        lambda c: c.curve("deletion", AREA),
    ),
    Metric(
        "insertion-minus-deletion-10",
        "Insertion minus deletion, 10 %",
        "higher",
        "nothing",
        f"Insertion minus deletion {_SHOWN}.",
        f"{_PETSIUK}; the equal area is ours",
        partial(judging.difference, area=AREA),
    ),
    Metric(
        "road",
        "ROAD",
        "higher",
        "nothing",
        "The class's mean probability with the least relevant pixels removed and imputed, less "
        "that with the most relevant ones.",
        "Rong et al. 2022 (Remove and Debias)",
        judging.road,
    ),
    Metric(
        "patch-correlation",
        "Patch correlation",
        "higher",
        "nothing",
        "Rank correlation over 16 patches between the map's sum in a patch and the probability "
        "lost when that patch alone is blurred.",
        "Alvarez-Melis and Jaakkola 2018 (faithfulness); Nauta et al. 2023 (single deletion)",
        lambda c: metrics.patch_correlation(*c.question),
    ),
    Metric(
        "class-correlation",
        "Other class's map",
        "zero",
        "nothing",
        "Rank correlation with the map of a random other class: near 0 if the map depends on the "
        "class.",
        "Sixt et al. 2020 (random logit test)",
        judging.class_correlation,
    ),
    Metric(
        "head-randomisation",
        "Random head's map",
        "zero",
        "nothing",
        "Rank correlation with the map of the network whose last layer is random: near 0 if the "
        "map depends on it.",
        _ADEBAYO,
        judging.head,
    ),
    Metric(
        "cascade-randomisation",
        "Random layers' maps",
        "zero",
        "nothing",
        f"The same, the mean over {STAGES} networks of which more and more layers are random, from "
        "the head down to the input.",
        f"{_ADEBAYO} (cascading randomisation)",
        judging.cascade,
    ),
    Metric(
        "max-sensitivity",
        "Max-sensitivity",
        "lower",
        "nothing",
        "How far the map moves at most, relative to its norm, when the image changes by noise of "
        "at most 0.02.",
        "Yeh et al. 2019",
        judging.sensitivity,
    ),
    Metric(
        "support-fraction",
        "Support",
        "neither",
        "nothing",
        "The share of the pixels that are not zero.",
        "the l0 norm over the number of pixels",
        lambda c: metrics.support_fraction(c.maps),
    ),
    Metric(
        "gini",
        "Gini index",
        "neither",
        "nothing",
        "How unevenly the map is spread: 0 for a flat map, near 1 for a few pixels.",
        "Hurley and Rickard 2009; Chalasani et al. 2020",
        lambda c: metrics.gini(c.maps),
    ),
    Metric(
        "morans-i",
        "Moran's I",
        "neither",
        "nothing",
        "Spatial coherence: 1 for a smooth map, about 0 for independent pixels.",
        "Moran 1950, four neighbours",
        lambda c: metrics.morans_i(c.maps),
    ),
    Metric(
        "cost",
        "Cost",
        "lower",
        "nothing",
        "Seconds as a multiple of a forward pass: of the first image of each batch, the median "
        f"over {ROUNDS} rounds in which both take turns.",
        "measured on the machine that ran it",
        judging.cost,
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order of the tables."""

DEFAULTS = (
    "energy-in-mask",
    "top-area",
    "rank-accuracy",
    "pointing",
    "grid-cell",
    "grid-object",
    "insertion-minus-deletion-10",
    "patch-correlation",
    "class-correlation",
    "head-randomisation",
    "support-fraction",
    "gini",
    "morans-i",
)
"""What is measured unless asked otherwise: some minutes a method for 20 photos on two cores. ROAD,
the cascade, max-sensitivity and the cost take several times as long."""


def find(names: Iterable[str]) -> tuple[Metric, ...]:
    """Metrics by their names, each once.

    Raises:
        SettingsError: there is no such metric, or none is named.
    """
    found = {}
    for name in names:
        if name not in METRICS:
            close = difflib.get_close_matches(name.lower(), METRICS, n=3)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise SettingsError(
                f"there is no metric {name!r}.{hint} Known are {', '.join(METRICS)}."
            )
        found[name] = METRICS[name]
    if not found:
        raise SettingsError("no metric is named: give at least one.")
    return tuple(found.values())
