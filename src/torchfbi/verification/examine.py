"""One explanation, put to the test."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchfbi.verification import controls
from torchfbi.verification.moves import Again, staying
from torchfbi.verification.necessary import remove
from torchfbi.verification.occlusion import Occlusion
from torchfbi.verification.rival import correlation
from torchfbi.verification.stability import Stability, stability
from torchfbi.verification.sufficient import PASSES, Found, beginnings, likely, trimmed
from torchfbi.verification.verdict import PARTS, Part, Rival, Verdict
from torchfbi.verification.words import REASONS

MOST_PASSES, MOST_TRIALS = 60, 12
"""Images that the network is shown at most, and how many of them test random additions."""

AFTERWARDS = 18
"""What may be needed once the sufficient part is found: eight passes for the necessary one, eight
for the controls, and a random addition under each removal."""

EXPLAINED = 3
"""Forward passes that one explanation takes: one of its own, and a walk back as long as two."""

SMALL = 0.4
"""Where the beginning of the map's order that keeps the class is larger than this share of the
image, the map explains nothing, whatever trimming makes of it."""

BEATEN = {
    "better than elsewhere": ("control", "sufficient", 0.5),
    "better than chance": ("random", "claimed", 0.5),
    "better than edges": ("edges", "claimed", 0.8),
    "better than the centre": ("centre", "claimed", 1.0),
}
"""Which part must give less than which share of the probability that which other one gives. Objects
stand in the middle and have edges: there a map need not be so much better."""

KNOWN = 0.85
"""Above this rank correlation with the image's edges, or with nearness to its centre, a map is no
more than them, however well they do on this image."""

NOISE = 3.0
"""Below this many standard deviations (``controls.likeness``) neighbouring patches of a map are no
more alike than shuffled ones, and smoothed noise finds an object by luck alone."""

ALIKE = 0.9
"""Above this rank correlation with the strongest rival's map it is not about its class."""

STEADY = 1 / 3
"""The share of random additions that has to leave the class kept."""

UNMOVED = 0.5
"""Of what the map names first, so much has to be named first again when the image changes a little:
else most of it is owed to what nobody sees."""


def examine(
    occlusion: Occlusion,
    evidence: Tensor,
    label: str,
    rival: Rival | None = None,
    again: Again | None = None,
    seed: int = 0,
) -> Verdict:
    """Test a map on the image that it explains.

    Args:
        occlusion: the image, the class, the network.
        evidence: the map, (*occlusion.grid.sizes) finite; larger speaks more for the class.
        label: the class's name.
        rival: how the map differs from the strongest rival's, if that is known.
        again: what the method says of the changed image, if it could be asked.
        seed: of everything that is drawn at random. Each class has its own draws, lest a lucky
            random order be what chance gives for a whole data set.
    """
    generator = torch.Generator().manual_seed(seed + occlusion.target)
    occlusion.passes += EXPLAINED * ((rival is not None) + 2 * (again is not None))
    found = _tested(occlusion, evidence, again, generator) if occlusion.removals else _Tested()
    return Verdict(
        target=occlusion.target,
        label=label,
        probability=occlusion.probability,
        is_answer=occlusion.is_answer,
        **{name: found.parts.get(name) for name in PARTS},
        stability=found.stability,
        rival=rival,
        checks=_checks(found, rival),
        sigma=occlusion.sigma,
        passes=occlusion.passes,
        seed=seed,
    )


@dataclass
class _Tested:
    """The parts by name, how firm the sufficient one is, the checks for which the order is too near
    to one that knows nothing of the network, and how much more alike the map's neighbours are
    than shuffled ones."""

    parts: dict[str, Part] = field(default_factory=dict)
    stability: Stability | None = None
    known: tuple[str, ...] = ()
    likeness: float = 0.0


def _tested(
    occlusion: Occlusion, evidence: Tensor, again: Again | None, generator: torch.Generator
) -> _Tested:
    grid = occlusion.grid
    order = grid.order(evidence, generator)
    end = min(occlusion.passes + PASSES, MOST_PASSES - AFTERWARDS)
    tried = beginnings(occlusion, order)
    claimed = tried.first(tried.prediction.kept)
    sufficient = trimmed(occlusion, claimed, order, generator, end - occlusion.passes)
    removed = remove(occlusion, order, sufficient)
    length = int(claimed.patches.sum())
    each = [grid.order(one.cpu(), generator) for one in controls.edges(occlusion.image)]
    edges = max(each, key=lambda other: correlation(order, other))
    centre = grid.order(controls.centre(grid), generator)
    blind = {"better than edges": edges, "better than the centre": centre}
    others = {
        "control": controls.elsewhere(sufficient.patches),
        "random": grid.order(torch.randn(grid.sizes, generator=generator), generator) < length,
        "edges": edges < length,
        "centre": centre < length,
    }
    asked = occlusion.keep(torch.stack(list(others.values())))
    found: dict[str, Found | None] = {
        "sufficient": sufficient,
        "claimed": claimed,
        "most": tried.first(likely(occlusion, tried.prediction)),
        "necessary": removed.necessary,
        "second": removed.rest if removed.redundant else None,
        **{name: Found(patches, asked.one(i)) for i, (name, patches) in enumerate(others.items())},
    }
    trials = min(MOST_TRIALS, MOST_PASSES - occlusion.passes)
    firm = stability(occlusion, sufficient.patches, trials, generator)
    if again is not None:
        noise, shift = staying(grid, evidence, again)
        firm = firm._replace(noise=noise, shift=shift)
    return _Tested(
        {name: _part(occlusion, one) for name, one in found.items() if one is not None},
        firm,
        tuple(name for name, other in blind.items() if correlation(order, other) >= KNOWN),
        controls.likeness(grid.means(evidence.double())),
    )


def _part(occlusion: Occlusion, found: Found) -> Part:
    names, prediction = occlusion.removals, found.prediction
    return Part(
        occlusion.grid.pixels(found.patches[None])[0],
        dict(zip(names, prediction.probability[:, 0].tolist(), strict=True)),
        dict(zip(names, (prediction.margin[:, 0] > 0).tolist(), strict=True)),
    )


def _checks(found: _Tested, rival: Rival | None) -> dict[str, bool]:
    """Every test by its name, in the order of ``REASONS``."""
    checks = dict.fromkeys(REASONS, False)
    if rival is None:
        del checks["about this class"]
    else:
        checks["about this class"] = rival.correlation < ALIKE
    firm = found.stability
    if firm is None or firm.noise is None or firm.shift is None:
        del checks["steady"]
    else:
        checks["steady"] = min(firm.noise, firm.shift) >= UNMOVED
    if firm is None:
        return checks
    parts = found.parts
    checks["sufficient"] = parts["claimed"].share <= SMALL
    for name, (control, part, limit) in BEATEN.items():
        better = _total(parts[control]) < limit * _total(parts[part])
        checks[name] = better and name not in found.known
    checks["more than noise"] = found.likeness >= NOISE
    checks["necessary"] = "necessary" in parts or "second" in parts
    checks["stable"] = firm.share >= STEADY
    return checks


def _total(part: Part) -> float:
    return sum(part.probabilities.values())
