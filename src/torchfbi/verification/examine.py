"""One explanation, put to the test."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchfbi.verification import controls
from torchfbi.verification.asking import Question
from torchfbi.verification.necessary import remove
from torchfbi.verification.stability import Stability, stability
from torchfbi.verification.sufficient import Found, beginnings, trimmed
from torchfbi.verification.verdict import PARTS, Part, Rival, Verdict
from torchfbi.verification.words import REASONS

MOST_PASSES, MOST_TRIALS = 60, 12
"""Images that the network is shown at most, and how many of them test random additions."""

SMALL = 0.4
"""A part larger than this share of the image explains nothing."""

MOST = 0.9
"""The share of the whole image's probability that ``Verdict.most`` keeps."""

BEATEN = 0.5
"""A control gives less than this share of the probability that the part gives."""

ALIKE = 0.9
"""Above this rank correlation a map is not about its class but about any."""

STEADY = 0.5
"""The share of random additions that has to leave the class kept."""


def examine(
    question: Question,
    evidence: Tensor,
    label: str,
    rival: Rival | None = None,
    seed: int = 0,
) -> Verdict:
    """Test a map on the image that it explains.

    Args:
        question: the image, the class, the network.
        evidence: the map, (*question.grid.sizes) finite; larger speaks more for the class.
        label: the class's name.
        rival: how the map differs from the strongest rival's, if that is known.
        seed: of everything that is drawn at random.
    """
    generator = torch.Generator().manual_seed(seed)
    found = _tested(question, evidence, generator) if question.removals else _Tested()
    return Verdict(
        target=question.target,
        label=label,
        probability=question.probability,
        is_answer=question.is_answer,
        **{name: found.parts.get(name) for name in PARTS},
        stability=found.stability,
        rival=rival,
        checks=_checks(found, rival),
        passes=question.passes,
        seed=seed,
    )


@dataclass
class _Tested:
    """The parts by name, and how firm the sufficient one is."""

    parts: dict[str, Part] = field(default_factory=dict)
    stability: Stability | None = None


def _tested(question: Question, evidence: Tensor, generator: torch.Generator) -> _Tested:
    grid = question.grid
    order = grid.order(evidence, generator)
    tried = beginnings(question, order)
    claimed = tried.first(tried.answer.kept)
    likely = (tried.answer.probability >= MOST * question.probability).all(0)
    sufficient = trimmed(question, claimed, order, generator)
    removed = remove(question, order, sufficient.patches)
    length = int(claimed.patches.sum())
    others = {
        "control": controls.elsewhere(sufficient.patches),
        "random": grid.order(torch.zeros(grid.sizes), generator) < length,
        "edges": grid.order(controls.edges(question.image), generator) < length,
        "centre": grid.order(controls.centre(grid), generator) < length,
    }
    asked = question.keep(torch.stack(list(others.values())))
    found: dict[str, Found | None] = {
        "sufficient": sufficient,
        "claimed": claimed,
        "most": tried.first(tried.answer.kept & likely),
        "necessary": removed.necessary,
        "second": removed.rest if removed.redundant else None,
        **{name: Found(patches, asked.one(i)) for i, (name, patches) in enumerate(others.items())},
    }
    trials = min(MOST_TRIALS, MOST_PASSES - question.passes)
    return _Tested(
        {name: _part(question, one) for name, one in found.items() if one is not None},
        stability(question, sufficient.patches, trials, generator),
    )


def _part(question: Question, found: Found) -> Part:
    names, answer = question.removals, found.answer
    return Part(
        question.grid.pixels(found.patches[None])[0],
        dict(zip(names, answer.probability[:, 0].tolist(), strict=True)),
        dict(zip(names, (answer.margin[:, 0] > 0).tolist(), strict=True)),
    )


def _checks(found: _Tested, rival: Rival | None) -> dict[str, bool]:
    """Every test by its name, in the order of ``REASONS``."""
    checks = dict.fromkeys(REASONS, False)
    if rival is None:
        del checks["about this class"]
    else:
        checks["about this class"] = rival.correlation < ALIKE
    if not found.parts or found.stability is None:
        return checks
    parts = found.parts
    checks["sufficient"] = parts["sufficient"].share <= SMALL
    beaten = [
        ("elsewhere", "control", "sufficient"),
        ("chance", "random", "claimed"),
        ("edges", "edges", "claimed"),
        ("the centre", "centre", "claimed"),
    ]
    for name, control, part in beaten:
        checks[f"better than {name}"] = _beaten(parts[control], parts[part])
    checks["necessary"] = "necessary" in parts or "second" in parts
    checks["stable"] = found.stability.share >= STEADY
    return checks


def _beaten(control: Part, part: Part) -> bool:
    """Whether the control loses the class under one removal at least, and gives it less."""
    less = sum(control.probabilities.values()) < BEATEN * sum(part.probabilities.values())
    return less and not all(control.kept.values())
