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
    "sufficient": "in the map's own order it takes a large part of the image",
    "better than elsewhere": "a part of the same shape elsewhere does at least half as well",
    "better than chance": "a random part as large as the map asks for does at least half as well",
    "more than noise": "the map's neighbouring places are no more alike than shuffled ones",
    "better than edges": "an edge detector orders the image nearly as well",
    "better than the centre": "the middle of the image does as well",
    "about this class": "the map is nearly that of the class that comes next",
    "necessary": "it is not clear that the class needs what the map names first",
    "stable": "other parts of the image, when they join, often change the answer",
    "steady": "the map names other places first as soon as the image changes a little",
}
"""What a failed check means."""


def sentence(verdict: Verdict) -> str:
    """What was found, what it is compared with, the ruling, and the assumptions."""
    name = f"“{verdict.label}”"
    if verdict.sufficient is None:
        says = f"says {name}" if verdict.is_answer else f"finds {name} as probable"
        return (
            f"The network {says} even when all of the image is blurred or painted in its mean "
            "colour: what in the image made it say so cannot be tested, and the explanation "
            f"{verdict.ruling}."
        )
    if verdict.sufficient.share == 1:  # nothing to compare
        return (
            f"No part of the image found keeps {name} ({percent(verdict.probability)}): only the "
            f"whole does. {_ruling(verdict)} {ASSUMPTIONS}"
        )
    said = (_sufficient, _claimed, _controls, _necessary, _stable, _steady, _ruling)
    return " ".join(filter(None, [*(part(verdict) for part in said), ASSUMPTIONS]))


def gist(verdict: Verdict) -> str:
    """The one sentence for who reads no more: what is enough for the network, where the
    explanation holds; otherwise what it fails."""
    if verdict.holds:
        return _sufficient(verdict)
    if verdict.sufficient is None:
        return sentence(verdict)
    failed = _failed(verdict)
    return f"{failed[0].upper()}{failed[1:]}."


def _sufficient(verdict: Verdict) -> str:
    name, whole, found = f"“{verdict.label}”", percent(verdict.probability), verdict.sufficient
    assert found is not None
    share, alone = percent(found.share), percent(found.probability)
    only = next(iter(found.probabilities)) if len(found.probabilities) == 1 else None
    under = f" (tested by {REMOVED[only]} alone)" if only else ""
    if not verdict.is_answer:
        return (
            f"{name} is not the network's answer to this image ({whole}), but {share} of it, kept "
            f"alone{under}, makes it as probable (at least {alone})."
        )
    return (
        f"The network still says {name} when it sees {share} of the image and nothing else{under}: "
        f"its probability is then at least {alone}, and {whole} for the whole image."
    )


REMOVED = {"blur": "blurring the rest", "mean": "painting the rest in the mean colour"}


def _claimed(verdict: Verdict) -> str:
    if verdict.claimed is None or verdict.most is None:
        return ""
    own, most = verdict.claimed.share, verdict.most.share
    much = f"{percent(most)} to keep" if most < 1 else "over half of it to keep"
    more = "which keeps" if most == own else f"and {much}"
    return f"In the map's own order it takes {percent(own)}, {more} nine tenths of the probability."


def _controls(verdict: Verdict) -> str:
    control, random = verdict.control, verdict.random
    if control is None or random is None:
        return ""
    return (
        f"A region of the small part's shape elsewhere gives {percent(_largest(control))}, "
        f"a random {percent(random.share)} of the image {percent(_largest(random))}."
    )


def _necessary(verdict: Verdict) -> str:
    if verdict.necessary is not None:
        share, left = percent(verdict.necessary.share), percent(_largest(verdict.necessary))
        lost = "the network says something else" if verdict.is_answer else "it is less probable"
        return f"Without {share} of the image {lost}: the probability falls to {left} or less."
    if verdict.second is not None:
        share = percent(verdict.second.share)
        return (
            "The evidence is redundant: without the half that the map names first, the other "
            f"{share} of the image is enough."
        )
    return "Whether the class needs what the map names first depends on what takes its place."


def _stable(verdict: Verdict) -> str:
    found = verdict.stability
    if found is None:
        return ""
    stays = "the answer stays" if verdict.is_answer else "it stays as probable"
    return (
        f"When a quarter of the rest joins the small part at random, {stays} in {found.kept} of "
        f"{found.trials} trials (95% interval {percent(found.low)} to {percent(found.high)})."
    )


def _steady(verdict: Verdict) -> str:
    found = verdict.stability
    if found is None or found.noise is None or found.shift is None:
        return "How far the map moves with the image is not known: only its own method can tell."
    return (
        f"With a little noise the map still names {percent(found.noise)} of the tenth of the image "
        f"that it named first, with the image moved by some pixels {percent(found.shift)}."
    )


def _ruling(verdict: Verdict) -> str:
    if verdict.holds:
        return "The explanation holds."
    return f"The explanation {verdict.ruling}: {_failed(verdict)}."


def _failed(verdict: Verdict) -> str:
    """What it fails, in the order of ``REASONS``; only the first where only the whole is enough."""
    if verdict.sufficient is not None and verdict.sufficient.share == 1:
        return REASONS["sufficient"]
    return "; ".join(REASONS[name] for name, passed in verdict.checks.items() if not passed)


def _largest(part: Part) -> float:
    return max(part.probabilities.values())


def percent(share: float) -> str:
    """``12%``; with one more digit at either end, where only all is 100% and only nothing 0%."""
    if share in (0, 1):
        return f"{share:.0%}"
    if share < 0.001:
        return "less than 0.1%"
    digits = 0 if 0.0995 <= share < 0.995 else 1
    return f"{min(100 * share, 99.9):.{digits}f}%"
