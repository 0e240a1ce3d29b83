"""A verdict in words that a lay person understands and an expert accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchfbi.verification.verdict import Part, Verdict

ASSUMPTIONS = (
    "This is said of this network and this image, with what is removed blurred or in the mean "
    "colour; a smaller part may exist."
)

REASONS = {
    "sufficient": "only a large part keeps the class where the map alone says what comes first",
    "better than elsewhere": "a part of the same shape elsewhere does nearly as well",
    "better than chance": "randomly drawn patches do nearly as well",
    "better than edges": "an edge detector orders the image nearly as well",
    "better than the centre": "the middle of the image does nearly as well",
    "about this class": "the map is nearly that of the class that comes next",
    "necessary": "it is not clear that the class needs what the map names first",
    "stable": "other parts of the image, when they join, often change the answer",
}
"""What a failed check means."""


def sentence(verdict: Verdict) -> str:
    """What was found, what it is compared with, the ruling, and the assumptions."""
    parts = [_sufficient(verdict)]
    if not _is_whole(verdict):
        parts += [_controls(verdict), _necessary(verdict), _stable(verdict)]
    return " ".join(filter(None, [*parts, _ruling(verdict), ASSUMPTIONS]))


def gist(verdict: Verdict) -> str:
    """The one sentence for who reads no more: what is enough for the network, where the
    explanation holds; otherwise what it fails."""
    failed = _failed(verdict)
    return f"{failed[0].upper()}{failed[1:]}." if failed else _sufficient(verdict)


def _is_whole(verdict: Verdict) -> bool:
    """Whether only the whole image keeps the class: then there is nothing to compare it with."""
    return verdict.sufficient is not None and verdict.sufficient.share == 1


def _sufficient(verdict: Verdict) -> str:
    name, whole = f"“{verdict.label}”", percent(verdict.probability)
    found = verdict.sufficient
    if found is None:
        return (
            f"The network's answer cannot be taken apart: it says {name} of the empty image as "
            "well."
        )
    alone = percent(found.probability)
    if _is_whole(verdict):
        return f"No part of the image found keeps {name} ({whole}): only the whole does."
    if not verdict.is_answer:
        return (
            f"{name} is not the network's answer to this image ({whole}), but "
            f"{percent(found.share)} of it, kept alone, make it as probable (at least {alone})."
        )
    only = next(iter(found.probabilities)) if len(found.probabilities) == 1 else None
    under = f" (tested by {REMOVED[only]} alone)" if only else ""
    return (
        f"The network still says {name} when it sees {percent(found.share)} of the image and "
        f"nothing else{under}: its probability is then at least {alone}, and {whole} for the whole "
        "image."
    )


REMOVED = {"blur": "blurring the rest", "mean": "painting the rest in the mean colour"}


def _controls(verdict: Verdict) -> str:
    if verdict.control is None or verdict.random is None:
        return ""
    control, random = (_largest(part) for part in (verdict.control, verdict.random))
    return (
        f"A region of the same shape elsewhere gives {percent(control)}, as many patches drawn at "
        f"random {percent(random)}."
    )


def _necessary(verdict: Verdict) -> str:
    if verdict.necessary is not None:
        share, left = percent(verdict.necessary.share), percent(_largest(verdict.necessary))
        return f"Without {share} of the image it no longer does ({left} at most)."
    if verdict.second is not None:
        share = percent(verdict.second.share)
        return (
            "The evidence is redundant: without the half that the map names first, another "
            f"{share} of the image is enough."
        )
    if verdict.sufficient is None:
        return ""
    return "Whether the class needs what the map names first depends on what takes its place."


def _stable(verdict: Verdict) -> str:
    found = verdict.stability
    if found is None:
        return ""
    return (
        f"When a quarter of the rest joins the part at random, the class stays in {found.kept} of "
        f"{found.trials} trials (95 % interval {percent(found.low)} to {percent(found.high)})."
    )


def _ruling(verdict: Verdict) -> str:
    if verdict.holds:
        return "The explanation holds."
    return f"The explanation {verdict.ruling}: {_failed(verdict)}."


def _failed(verdict: Verdict) -> str:
    """What it fails, in the order of ``REASONS``."""
    if _is_whole(verdict):
        return REASONS["sufficient"]
    return "; ".join(REASONS[name] for name, passed in verdict.checks.items() if not passed)


def _largest(part: Part) -> float:
    return max(part.probabilities.values())


def percent(share: float) -> str:
    """``12 %``; one more digit below a tenth."""
    if 0 < share < 0.001:
        return "less than 0.1 %"
    return f"{100 * share:.{0 if share >= 0.0995 or share == 0 else 1}f} %"
