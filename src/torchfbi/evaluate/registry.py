"""The metrics by name: what each asks, what is good, and where it is defined."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import partial

from torchfbi import metrics
from torchfbi.errors import SettingsError
from torchfbi.evaluate import measures
from torchfbi.evaluate.context import PATCHES
from torchfbi.evaluate.measures import (
    CELLS,
    FEW_STEPS,
    KEPT,
    ROUNDS,
    STAGES,
    STEPS,
    TOLERANCE,
    TOLERANCE_AT,
)
from torchfbi.evaluate.metric import Metric
from torchfbi.method.evidence import SHARE, density

_BLUECHER = "Blücher et al. 2024, section 3.2"
_ADEBAYO = "Adebayo et al. 2018, section 3"

_ALL = (
    Metric(
        "energy-in-mask",
        "Energy in mask",
        "higher",
        "The share of the map's sum that lies on the object.",
        "Wang et al. 2020 (Score-CAM), energy-based pointing game; Arras et al. 2022",
        lambda c: metrics.energy_in_mask(c.maps, c.mask),
        needs="mask off grids",
    ),
    Metric(
        "top-area",
        "Top area in mask",
        "higher",
        "Of as many highest pixels as the object has, or as the map's support where that is "
        "smaller, the share that lies on the object.",
        "Arras et al. 2022 (CLEVR-XAI), relevance rank accuracy; ending with the support is ours",
        lambda c: metrics.top_area_in_mask(c.maps, c.mask, fill=False),
        needs="mask",
    ),
    Metric(
        "rank-accuracy",
        "Rank accuracy",
        "higher",
        "The same, filled up with pixels at random where the support is smaller than the object.",
        "Arras et al. 2022 (CLEVR-XAI), relevance rank accuracy",
        lambda c: metrics.top_area_in_mask(c.maps, c.mask),
        needs="mask",
    ),
    Metric(
        "pointing",
        "Pointing game",
        "higher",
        f"Whether the map's maximum lies on the object, or at most {TOLERANCE} pixels of "
        f"{TOLERANCE_AT} beside it.",
        "Zhang et al. 2016 (excitation backprop)",
        measures.pointing,
        needs="mask",
    ),
    Metric(
        "grid-cell",
        "Energy in cell",
        "higher",
        "In a grid of images of different classes, the share of the map's sum in the cell of the "
        "class that was asked for.",
        "Böhle et al. 2021 (CoDA networks), section 4",
        lambda c: metrics.energy_in_mask(c.maps, c.cell),
        needs="cell",
    ),
    Metric(
        "grid-object",
        "Energy in object",
        "higher",
        "The same within the cell: the share of the map's sum on the object itself.",
        "Böhle et al. 2021, with the object for its cell",
        lambda c: metrics.energy_in_mask(c.maps, c.mask),
        needs="mask and cell",
    ),
    Metric(
        "srg",
        "SRG",
        "higher",
        "Symmetric relevance gain: insertion AUC less deletion AUC of the class's probability "
        f"over that of the whole image, {PATCHES} square patches along the side in the map's "
        "order; the mean of removal by blur and by the image's mean colour.",
        _BLUECHER,
        partial(measures.gain, units="patches", kinds=("blur", "mean"), steps=STEPS),
    ),
    Metric(
        "srg-blur",
        "SRG, blur",
        "higher",
        "The same, by blur alone.",
        _BLUECHER,
        partial(measures.gain, units="patches", kinds=("blur",), steps=STEPS),
    ),
    Metric(
        "srg-mean",
        "SRG, mean colour",
        "higher",
        "The same, by the image's mean colour alone.",
        _BLUECHER,
        partial(measures.gain, units="patches", kinds=("mean",), steps=STEPS),
    ),
    Metric(
        "srg-road",
        "SRG, ROAD",
        "higher",
        "The same, by noisy linear imputation from the pixels that are left.",
        f"{_BLUECHER}; Rong et al. 2022 (remove and debias)",
        partial(measures.gain, units="patches", kinds=("road",), steps=FEW_STEPS),
    ),
    *(
        Metric(
            f"srg-slic{count}",
            f"SRG, {count} superpixels",
            "higher",
            f"SRG, the mean of blur and mean colour, with about {count} SLIC superpixels for "
            "patches.",
            _BLUECHER,
            partial(measures.gain, units=count, kinds=("blur", "mean"), steps=FEW_STEPS),
        )
        for count in (25, 100, 500)
    ),
    Metric(
        "contrastive-srg",
        "Contrastive SRG",
        "higher",
        "SRG of the class's logit less that of a class in another cell of the grid, by blur: 0 for "
        "maps that show both objects alike.",
        f"{_BLUECHER}; the difference of two classes is ours",
        lambda c: c.contrastive_gain(FEW_STEPS),
        needs="rival",
    ),
    Metric(
        "kept-10",
        f"Kept {KEPT:.0%}",
        "higher",
        f"The class's probability with only the {KEPT:.0%} of the patches that the map ranks "
        "highest, the others blurred, over that of the whole image.",
        "DeYoung et al. 2020 (ERASER), sufficiency, as a ratio",
        measures.kept_share,
    ),
    Metric(
        "single-deletion",
        "Single deletion",
        "higher",
        f"Rank correlation over {CELLS} x {CELLS} cells between the map's signed sum in a cell and "
        "the drop of the class's logit when that cell alone is blurred.",
        "Alvarez-Melis and Jaakkola 2018 (faithfulness); Nauta et al. 2023 (single deletion)",
        measures.single_deletion,
    ),
    Metric(
        "support-kept",
        "Support alone",
        "neither",
        f"The class's probability with nothing but the fewest pixels that hold {SHARE:.0%} of the "
        "map, the others blurred, over that of the whole image: read it beside their share.",
        "DeYoung et al. 2020 (ERASER), sufficiency, as a ratio",
        lambda c: measures.support_alone(c).kept,
    ),
    Metric(
        "support-removed",
        "Support removed",
        "neither",
        "The same with these pixels blurred.",
        "DeYoung et al. 2020 (ERASER), comprehensiveness, as a ratio",
        lambda c: measures.support_alone(c).removed,
    ),
    Metric(
        "class-correlation",
        "Other class's map",
        "lower",
        "Rank correlation, signs and all, with the map of a random other class: 0 or below if the "
        "map depends on the class.",
        "Sixt et al. 2020 (random logit test)",
        measures.class_correlation,
    ),
    Metric(
        "head-randomisation",
        "Random head's map",
        "lower",
        "Rank correlation, signs and all, with the map of the network whose last layer is random: "
        "0 or below if the map depends on it.",
        _ADEBAYO,
        measures.head,
    ),
    Metric(
        "cascade-randomisation",
        "Random layers' maps",
        "zero",
        f"The same, the mean over {STAGES} networks of which more and more layers are random, from "
        "the head down to the input.",
        f"{_ADEBAYO} (cascading randomisation)",
        measures.cascade,
    ),
    Metric(
        "max-sensitivity",
        "Max-sensitivity",
        "lower",
        "How far the map moves at most, relative to its norm, when the image changes by noise of "
        "at most 0.02.",
        "Yeh et al. 2019",
        measures.sensitivity,
    ),
    Metric(
        "support-fraction",
        "Support",
        "neither",
        f"The share of the pixels that it takes to hold {SHARE:.0%} of the map.",
        "docs/method.md",
        lambda c: density(c.maps),
    ),
    Metric(
        "gini",
        "Gini index",
        "neither",
        "How unevenly the map is spread: 0 for a flat map, near 1 for a few pixels.",
        "Hurley and Rickard 2009; Chalasani et al. 2020",
        lambda c: metrics.gini(c.maps),
    ),
    Metric(
        "morans-i",
        "Moran's I",
        "neither",
        "Spatial coherence: 1 for a smooth map, about 0 for independent pixels.",
        "Moran 1950, four neighbours",
        lambda c: metrics.morans_i(c.maps),
    ),
    Metric(
        "cost",
        "Cost",
        "lower",
        "Seconds as a multiple of a forward pass: of the first image of each batch, the median "
        f"over {ROUNDS} rounds in which both take turns.",
        "measured on the machine that ran it",
        measures.cost,
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
    "srg",
    "contrastive-srg",
    "single-deletion",
    "class-correlation",
    "head-randomisation",
    "support-fraction",
    "gini",
    "morans-i",
)
"""What is measured unless asked otherwise: some minutes a method for 20 photos on two cores. ROAD,
the cascade, max-sensitivity and the cost take several times as long."""

PHOTOS = (
    "srg",
    "srg-blur",
    "srg-mean",
    "srg-slic25",
    "srg-slic100",
    "srg-slic500",
    "contrastive-srg",
    "kept-10",
    "single-deletion",
    "class-correlation",
    "head-randomisation",
    "support-kept",
    "support-removed",
    "support-fraction",
)
"""What is measured on photos without masks. ``srg-road`` takes about as long as all of it."""


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
