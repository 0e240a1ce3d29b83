"""Every knob of the method, validated, with the presets that are worth a name."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from torchfbi.errors import SettingsError

SeedKind = Literal["paper", "one-hot", "centered", "contrast"]
ThresholdKind = Literal["absolute", "relative", "mean", "quantile", "mass"]
Signs = Literal["positive", "signed"]
Ranking = Literal["activation", "contribution"]
Gates = Literal["rectify", "held", "derivative"]
Pooling = Literal["replicate", "proportional", "winner"]
Values = Literal["signal", "contribution"]
TopKAt = Literal["every layer", "top layer"]


@dataclass(frozen=True)
class Threshold:
    """Which entries of a feature count: those whose contribution p exceeds t.

    Args:
        kind: how t follows from ``value``, per sample and per layer:
            ``absolute``: t = value (the paper's tau, any number >= 0);
            ``mean``: t = value * the mean of the |p| that are not zero, value >= 0;
            ``relative``: t = value * max |p|, value in [0, 1);
            ``quantile``: the share ``value`` of the layer's entries is dropped, value in [0, 1);
            ``mass``: the smallest set of entries that holds the share ``value`` of the sum of
            |p| is kept, value in (0, 1].
        value: the number.

    Raises:
        SettingsError: unknown kind, or a value outside its range.
    """

    kind: ThresholdKind
    value: float

    def __post_init__(self) -> None:
        _check_choice("threshold kind", self.kind, ThresholdKind)
        _check_number("threshold value", self.value)
        in_range, expected = {
            "absolute": (self.value >= 0, ">= 0"),
            "mean": (self.value >= 0, ">= 0"),
            "relative": (0 <= self.value < 1, "in [0, 1)"),
            "quantile": (0 <= self.value < 1, "in [0, 1)"),
            "mass": (0 < self.value <= 1, "in (0, 1]"),
        }[self.kind]
        if not in_range:
            raise SettingsError(f"threshold {self}: the value must be {expected}.")

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read ``"mean:0.25"``, ``"absolute:10"``, ``"mass:0.9"`` and the like."""
        kind, _, number = text.partition(":")
        try:
            value = float(number)
        except ValueError:
            raise SettingsError(
                f"threshold {text!r}: write KIND:NUMBER, for example mean:0.25 or absolute:10."
            ) from None
        return cls(kind.strip(), value)  # type: ignore[arg-type]  # validated in __post_init__

    def __str__(self) -> str:
        return f"{self.kind}:{self.value!r}"


@dataclass(frozen=True)
class Settings:
    """How the backward walk behaves. Start from a preset and override what you like.

    >>> Settings.paper(tau=0.0, k=1.0).k
    1.0

    Args:
        preset: the name of the preset that these settings started from; a label only.
        seed: what is put at the logits z for the probed class c. ``paper``: max z at c, min z
            elsewhere (section 2, "Dense layers"); ``one-hot``: e_c; ``centered``: e_c minus
            1/(n-1) elsewhere; ``contrast``: e_c minus its rivals, weighted by their softmax
            probabilities among themselves.
        signs: ``positive`` keeps contributions p > t and rectifies (section 2,
            "Forward-Backward masking"); ``signed`` keeps \\|p\\| > t and both signs go on.
        threshold: how t is found; None keeps everything.
        shrink: what is kept is reduced to s (1 - t / \\|p\\|): soft thresholding (Donoho and
            Johnstone 1994): no entry comes or goes at once, which would amplify every rounding.
        k: the share of the feature maps that goes on, in (0, 1]. Section 3: 0.5.
        rank: maps are ranked by their total signal (``activation``, section 2, "Contributing
            feature maps") or by their total contribution (``contribution``).
        top_k_at: section 3 keeps the top maps at ``every layer``, section 2 only at the
            ``top layer``, the last feature with spatial extent.
        layers: names of the features at which the selection happens, with * as wildcard.
        gates: the adjoint of an activation function. ``rectify``: ReLU of the signal
            (section 2); ``held``: f(x) = x g(x) with g held constant; ``derivative``: f'(x).
        pooling: the adjoint of max pooling. ``replicate``: copy over the window, then minimum
            with the forward map (section 2, "Unpooling"); ``proportional``: share by
            activation; ``winner``: all to the maximum.
        subtract_bias: W^T (s - b) at dense layers (section 2, "Dense layers") or W^T s.
        evidence_gate: at the last feature with spatial extent only the positions go on whose
            evidence exceeds this share of the largest, in [0, 1); None for no gate.
        evidence_power: what goes on there is weighted by (relative evidence)^power; 0: not.
        antialias: smooth the signal at the image by a triangle as wide as the stride of the first
            feature: the adjoint of a strided layer leaves the grid of its stride behind.
        place_gate: only those pixels go on at whose place the evidence at the first feature
            exceeds this share of the largest, in [0, 1); None for no such gate.
        place_power: what goes on there is weighted by (relative evidence)^power; 0: not.
        image_threshold: treat the image as feature 0 and keep the pixels whose magnitude, the
            sum of \\|s\\| over the colours, exceeds this threshold; None keeps all.
        values: what ``values`` holds: the ``signal`` (section 2) or its product with the
            input, the ``contribution``.

    Raises:
        SettingsError: a field has a value that the method does not know.
    """

    preset: str = "custom"
    seed: SeedKind = "one-hot"
    signs: Signs = "signed"
    threshold: Threshold | None = None
    shrink: bool = False
    k: float = 1.0
    rank: Ranking = "contribution"
    top_k_at: TopKAt = "every layer"
    layers: tuple[str, ...] = ("*",)
    gates: Gates = "held"
    pooling: Pooling = "winner"
    subtract_bias: bool = False
    evidence_gate: float | None = None
    evidence_power: float = 0.0
    antialias: bool = False
    place_gate: float | None = None
    place_power: float = 0.0
    image_threshold: Threshold | None = None
    values: Values = "signal"

    def __post_init__(self) -> None:
        if not isinstance(self.preset, str):
            raise SettingsError(f"preset is {self.preset!r}: it must be a name.")
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name in ("threshold", "image_threshold"):
            rule = getattr(self, name)
            if isinstance(rule, str):
                object.__setattr__(self, name, Threshold.parse(rule))
            elif not (rule is None or isinstance(rule, Threshold)):
                raise SettingsError(f"{name} is {rule!r}: give a Threshold, 'mean:0.25' or None.")
        if isinstance(self.layers, str):
            object.__setattr__(self, "layers", (self.layers,))
        if isinstance(self.layers, list):
            object.__setattr__(self, "layers", tuple(self.layers))
        named = isinstance(self.layers, tuple) and bool(self.layers)
        if not named or not all(isinstance(name, str) for name in self.layers):
            raise SettingsError("layers must hold at least one name; '*' stands for all of them.")
        _check_number("k", self.k)
        if not 0 < self.k <= 1:
            raise SettingsError(f"k is {self.k}: it is a share of the maps, in (0, 1].")
        for name in ("evidence_gate", "place_gate"):
            gate = getattr(self, name)
            if gate is None:
                continue
            _check_number(name, gate)
            if not 0 <= gate < 1:
                raise SettingsError(f"{name} is {gate}: give a share in [0, 1).")
        for kind in ("evidence", "place"):
            name, power = f"{kind}_power", getattr(self, f"{kind}_power")
            _check_number(name, power)
            if power < 0:
                raise SettingsError(f"{name} is {power}: it must be >= 0.")
            if power and getattr(self, f"{kind}_gate") is None:
                raise SettingsError(f"{name} needs a number as {kind}_gate; 0 keeps all positions.")
        for name in ("shrink", "subtract_bias", "antialias"):
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(f"{name} must be True or False.")

    @classmethod
    def paper(cls, **overrides: Any) -> Settings:
        """The method as published: sections 2 and 3, tau = 10.0 and k = 50 %.

        ``tau=...`` is a short form of ``threshold=Threshold("absolute", ...)``, in all presets.
        """
        base = cls(
            preset="paper",
            seed="paper",
            signs="positive",
            threshold=Threshold("absolute", 10.0),
            k=0.5,
            rank="activation",
            gates="rectify",
            pooling="replicate",
            subtract_bias=True,
        )
        return base.override(**overrides)

    @classmethod
    def plain(cls, **overrides: Any) -> Settings:
        """The bare adjoint, nothing selected: the gradient on piecewise linear networks."""
        return cls(preset="plain", gates="derivative").override(**overrides)

    @classmethod
    def contrast(cls, **overrides: Any) -> Settings:
        """The default: what speaks for the class against its rivals, where its evidence is
        strongest, with thresholds that need no tuning (docs/study.md has the measurements)."""
        base = cls(
            preset="contrast",
            seed="contrast",
            threshold=Threshold("mean", 0.25),
            shrink=True,
            pooling="proportional",
            evidence_gate=0.3,
            evidence_power=1.0,
            antialias=True,
            place_gate=0.05,
            place_power=2.0,
            image_threshold=Threshold("mean", 0.25),
        )
        return base.override(**overrides)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Settings:
        """The preset of that name: ``paper``, ``contrast`` or ``plain``."""
        if name not in PRESETS:
            raise SettingsError(f"preset {name!r} is unknown: choose {', '.join(PRESETS)}.")
        settings: Settings = getattr(cls, name)(**overrides)
        return settings

    def override(self, **changes: Any) -> Settings:
        """A copy with some fields changed; ``tau=`` is short for an absolute threshold."""
        if "tau" in changes:
            if "threshold" in changes:
                raise SettingsError("tau is an absolute threshold: give tau or threshold.")
            tau = changes.pop("tau")
            changes["threshold"] = None if tau is None else Threshold("absolute", tau)
        known = {field.name for field in fields(self)}
        if unknown := sorted(changes.keys() - known):
            raise SettingsError(
                f"unknown setting {', '.join(unknown)}: choose from {', '.join(sorted(known))}."
            )
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of plain JSON values from which ``from_dict`` makes an equal object."""
        plain = asdict(self)
        for name in ("threshold", "image_threshold"):
            rule = getattr(self, name)
            plain[name] = None if rule is None else str(rule)
        plain["layers"] = list(self.layers)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Settings:
        """The inverse of ``to_dict``.

        Raises:
            SettingsError: an unknown field, or a value that the method does not know.
        """
        if not isinstance(plain, dict) or not all(isinstance(name, str) for name in plain):
            raise SettingsError(f"settings are {plain!r:.80}: give names and values.")
        return cls().override(**plain)


PRESETS = ("paper", "contrast", "plain")

_CHOICES: dict[str, Any] = {
    "seed": SeedKind,
    "signs": Signs,
    "rank": Ranking,
    "top_k_at": TopKAt,
    "gates": Gates,
    "pooling": Pooling,
    "values": Values,
}


def _check_choice(name: str, value: Any, choices: Any) -> None:
    if value not in get_args(choices):
        options = ", ".join(map(repr, get_args(choices)))
        raise SettingsError(f"{name} is {value!r}: choose one of {options}.")


def _check_number(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not abs(value) <= sys.float_info.max:  # also true of NaN
        raise SettingsError(f"{name} is {value!r:.80}: it must be a finite number.")
