"""Every knob of the method, validated, with the presets that are worth a name."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from torchfbi.errors import SettingsError

SeedKind = Literal["paper", "one-hot", "contrast"]
Gates = Literal["rectify", "held", "derivative", "guided"]
Pooling = Literal["replicate", "proportional", "winner"]
Values = Literal["signal", "evidence"]
MOST_GAMMA = 1e12


@dataclass(frozen=True)
class Settings:
    """How the backward walk behaves. Start from a preset and override what you like.

    >>> Settings.paper(tau=0.0, k=1.0).k
    1.0

    Args:
        preset: the name of the preset that these settings started from; a label only.
        seed: what is put at the logits z for the probed class c. ``paper``: max z at c, min z
            elsewhere (section 2, "Dense layers"); ``one-hot``: e_c; ``contrast``: e_c minus three
            quarters of its rivals, weighted by their softmax probabilities among themselves.
        gamma: of the excitation walk, in [0, 1e12]: how much more of the signal goes to what
            excited a unit; 0 is the plain adjoint (``torchfbi.method.adjoints.excitation``).
        tau: keep those entries of a feature whose product of signal and activation exceeds this
            number, >= 0 (section 2, "Forward-Backward masking"); None keeps all.
        k: the share of the feature maps that goes on at each layer, in (0, 1]: those of the largest
            total signal (section 2, "Contributing feature maps"; section 3: 0.5).
        gates: the adjoint of an activation function. ``rectify``: ReLU of the signal
            (section 2); ``held``: f(x) = f(0) + x g(x) with g held constant; ``derivative``: f'(x);
            ``guided``: f'(x) and ReLU of the signal (Springenberg et al. 2014).
        pooling: the adjoint of max pooling. ``replicate``: copy over the window, then minimum
            with the forward map (section 2, "Unpooling"); ``proportional``: share by
            activation; ``winner``: all to the maximum.
        subtract_bias: W^T (s - b) at dense layers (section 2, "Dense layers") or W^T s; the
            excitation walk leaves the bias where it is.
        values: what ``values`` holds: the ``signal`` that reaches the image (section 2), or the
            signed ``evidence`` there (``torchfbi.method.evidence``).

    Raises:
        SettingsError: a field has a value that the method does not know.
    """

    preset: str = "custom"
    seed: SeedKind = "one-hot"
    gamma: float = 0.0
    tau: float | None = None
    k: float = 1.0
    gates: Gates = "held"
    pooling: Pooling = "winner"
    subtract_bias: bool = False
    values: Values = "signal"

    def __post_init__(self) -> None:
        if not isinstance(self.preset, str):
            raise SettingsError(f"preset is {self.preset!r}: it must be a name.")
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        _check_number("gamma", self.gamma)
        if not 0 <= self.gamma <= MOST_GAMMA:
            raise SettingsError(
                f"gamma is {self.gamma}: give a number from 0, the plain adjoint, to "
                f"{MOST_GAMMA:g}, beyond which nothing changes."
            )
        if self.tau is not None:
            _check_number("tau", self.tau)
            if self.tau < 0:
                raise SettingsError(f"tau is {self.tau}: it must be >= 0, or None to keep all.")
        _check_number("k", self.k)
        if not 0 < self.k <= 1:
            raise SettingsError(f"k is {self.k}: it is a share of the maps, in (0, 1].")
        if not isinstance(self.subtract_bias, bool):
            raise SettingsError("subtract_bias must be True or False.")

    @property
    def rectified(self) -> bool:
        """Whether only positive signals go on at a feature."""
        return self.gates in ("rectify", "guided")

    @classmethod
    def paper(cls, **overrides: Any) -> Settings:
        """The method as published: sections 2 and 3, tau = 10.0 and k = 50 %."""
        base = cls(
            preset="paper",
            seed="paper",
            tau=10.0,
            k=0.5,
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
        """The default: the signed evidence for the class against its rivals, by the excitation
        walk (docs/study.md has the measurements)."""
        base = cls(
            preset="contrast",
            seed="contrast",
            gamma=0.25,
            pooling="proportional",
            values="evidence",
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
        """A copy with some fields changed."""
        known = {field.name for field in fields(self)}
        if unknown := sorted(changes.keys() - known):
            raise SettingsError(
                f"unknown setting {', '.join(unknown)}: choose from {', '.join(sorted(known))}."
            )
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of plain JSON values from which ``from_dict`` makes an equal object."""
        return asdict(self)

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
