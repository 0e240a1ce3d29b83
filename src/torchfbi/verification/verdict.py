"""What was found out about an explanation of one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from torchfbi.verification.stability import Stability
from torchfbi.verification.words import sentence

PARTS = (
    *("sufficient", "claimed", "most", "necessary", "second"),
    *("control", "random", "edges", "centre"),
)
"""The parts of a verdict by name."""

Ruling = Literal["holds", "holds in part", "does not hold"]


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the image, and what the network says with it alone, or without it.

    Args:
        mask: the part, bool, of the network's resolution, (H, W) for photos.
        probabilities: of the class, by what took the place of the rest (or of the part):
            ``blur``, ``mean``.
        kept: whether the class is kept under each of them.
    """

    mask: Tensor
    probabilities: dict[str, float]
    kept: dict[str, bool]

    @property
    def share(self) -> float:
        """Of the image's pixels, in [0, 1]."""
        return self.mask.double().mean().item()

    @property
    def probability(self) -> float:
        """The smallest over the removals."""
        return min(self.probabilities.values())

    def to_dict(self) -> dict[str, Any]:
        """Everything but the mask, as plain JSON values."""
        return {"share": self.share, "probabilities": self.probabilities, "kept": self.kept}


@dataclass(frozen=True)
class Rival:
    """How the map differs from that of the class that comes next.

    Args:
        label: that class.
        correlation: Spearman's, of the two maps' patches, in [-1, 1]; near 1 the map says nothing
            about this class in particular.
        against: the share of what speaks against the class that lies where the rival has its
            evidence, in [0, 1]; None where nothing speaks against it.
    """

    label: str
    correlation: float
    against: float | None


@dataclass(frozen=True, eq=False)
class Verdict:
    """Whether an explanation holds, and by what it was tested.

    The class is *kept* where it stays the network's answer; where it was not the answer in the
    first place, where it stays as probable as in the whole image. All parts consist of whole small
    patches and are tested under two removals.

    Args:
        target: the class.
        label: its name.
        probability: of the class in the whole image.
        is_answer: whether it is the network's answer there.
        sufficient: the smallest part found that, kept alone, keeps the class under both removals.
        claimed: the beginning of the map's own order that does so, before anything is trimmed.
        most: the smallest such beginning that keeps 90 % of the probability as well.
        necessary: the smallest part found whose removal loses the class; None where removing half
            of the image does not.
        second: where that half does not matter, a second sufficient part, disjoint from the first:
            the evidence is redundant.
        control: a part of the sufficient one's shape elsewhere.
        random, edges, centre: the beginnings, as long as ``claimed``, of orders that know nothing
            of the network: by noise that is smoothed as the map is, by edges, from the centre
            outwards.
        stability: how often random additions to the sufficient part leave the class kept, and how
            far the map moves when the image changes a little.
        rival: how the map differs from the strongest rival's; None where that is not known.
        checks: the tests by name, and whether the explanation passed.
        sigma: the standard deviation of the blur, in pixels.
        passes: how many images the network was shown; an explanation counts as three.
        seed: of what was drawn at random.
    """

    target: int
    label: str
    probability: float
    is_answer: bool
    sufficient: Part | None
    claimed: Part | None
    most: Part | None
    necessary: Part | None
    second: Part | None
    control: Part | None
    random: Part | None
    edges: Part | None
    centre: Part | None
    stability: Stability | None
    rival: Rival | None
    checks: dict[str, bool]
    sigma: float
    passes: int
    seed: int

    @property
    def ruling(self) -> Ruling:
        """It ``holds`` where all checks are passed, ``in part`` where at least a sufficient part
        was found that beats its controls."""
        if all(self.checks.values()):
            return "holds"
        needed = ("sufficient", "better than elsewhere", "better than chance")
        if all(self.checks[name] for name in needed):
            return "holds in part"
        return "does not hold"

    @property
    def holds(self) -> bool:
        """Whether all checks are passed."""
        return self.ruling == "holds"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        return sentence(self)

    def masks(self) -> dict[str, Tensor]:
        """What to draw, by name: the parts that were found, each a bool mask."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {name: part.mask for name, part in parts.items() if part is not None}

    def to_dict(self) -> dict[str, Any]:
        """Everything but the masks, as plain JSON values."""
        parts = {name: getattr(self, name) for name in PARTS}
        return {
            "target": self.target,
            "label": self.label,
            "probability": self.probability,
            "is_answer": self.is_answer,
            **{name: part and part.to_dict() for name, part in parts.items()},
            "stability": self.stability and self.stability._asdict(),
            "rival": self.rival and asdict(self.rival),
            "checks": self.checks,
            "ruling": self.ruling,
            "sentence": self.sentence,
            "sigma": self.sigma,
            "passes": self.passes,
            "seed": self.seed,
        }

    def stacked(self) -> Tensor:
        """All masks of ``PARTS``, (9, ...) bool; empty ones stand for parts that were not found."""
        found = [getattr(self, name) for name in PARTS]
        blank = next((torch.zeros_like(part.mask) for part in found if part is not None), None)
        if blank is None:
            return torch.zeros(len(PARTS), 0, dtype=torch.bool)
        return torch.stack([blank if part is None else part.mask for part in found]).cpu()

    @classmethod
    def from_dict(cls, plain: dict[str, Any], masks: Tensor) -> Verdict:
        """The inverse of ``to_dict`` and ``stacked``.

        Raises:
            KeyError, TypeError, ValueError: they are not what these made.
        """
        if masks.dtype != torch.bool or len(masks) != len(PARTS):
            raise ValueError("a verdict's masks are no parts of an image")
        parts = {
            name: plain[name]
            and Part(
                mask,
                {str(k): float(v) for k, v in plain[name]["probabilities"].items()},
                {str(k): bool(v) for k, v in plain[name]["kept"].items()},
            )
            for name, mask in zip(PARTS, masks, strict=True)
        }
        return cls(
            target=int(plain["target"]),
            label=str(plain["label"]),
            probability=float(plain["probability"]),
            is_answer=bool(plain["is_answer"]),
            **parts,
            stability=plain["stability"] and Stability(**plain["stability"]),
            rival=plain["rival"] and Rival(**plain["rival"]),
            checks={name: bool(plain["checks"][name]) for name in plain["checks"]},
            sigma=float(plain["sigma"]),
            passes=int(plain["passes"]),
            seed=int(plain["seed"]),
        )

    def __repr__(self) -> str:
        return f"Verdict({self.ruling}: {self.sentence})"
