"""Settings: presets, overrides, round trips, and clear refusals."""

import json

import pytest

from torchfbi import Settings
from torchfbi.errors import SettingsError
from torchfbi.method.settings import PRESETS

FIELDS = {
    "paper": ("paper", 0.0, 10.0, 0.5, "rectify", "replicate", True, "signal"),
    "contrast": ("contrast", 0.25, None, 1.0, "held", "proportional", False, "evidence"),
    "plain": ("one-hot", 0.0, None, 1.0, "derivative", "winner", False, "signal"),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_nine_fields_of_a_preset(preset: str) -> None:
    named = ("seed", "gamma", "tau", "k", "gates", "pooling", "subtract_bias", "values")
    expected = {"preset": preset, **dict(zip(named, FIELDS[preset], strict=True))}
    assert Settings.from_preset(preset).to_dict() == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_the_round_trip_through_json(preset: str) -> None:
    settings = Settings.from_preset(preset, k=0.3, tau=0.1 + 0.2, gates="guided")
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_what_is_overridden_changes_alone() -> None:
    changed = Settings.paper(tau=None, pooling="winner").to_dict()
    assert changed == {**Settings.paper().to_dict(), "tau": None, "pooling": "winner"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, r"k is 0: .* in \(0, 1\]"),
        ({"k": 1.5}, r"k is 1\.5"),
        ({"k": "half"}, "k is 'half': it must be a finite number"),
        ({"k": float("nan")}, "finite"),
        ({"k": True}, "k is True"),
        ({"seed": "two-hot"}, "seed is 'two-hot': choose one of 'paper', 'one-hot', 'contrast'"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"gates": "open"}, "gates is 'open'"),
        ({"values": "contribution"}, "choose one of 'signal', 'evidence'"),
        ({"gamma": 1e13}, "gamma is 10000000000000.0: give a number from 0"),
        ({"gamma": -0.25}, r"gamma is -0\.25: give a number from 0"),
        ({"gamma": float("inf")}, "finite"),
        ({"gamma": None}, "gamma is None"),
        ({"tau": -1}, "tau is -1: it must be >= 0"),
        ({"tau": float("inf")}, "finite"),
        ({"tau": "mass:0.5"}, "tau is 'mass:0.5': it must be a finite number"),
        ({"subtract_bias": 1}, "subtract_bias must be True or False"),
        ({"preset": 1}, "preset is 1: it must be a name"),
        ({"poling": "winner"}, "unknown setting poling: choose from gamma, gates, k"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.contrast(**changes)


def test_unknown_presets() -> None:
    with pytest.raises(SettingsError, match="preset 'best' is unknown: choose paper, contrast"):
        Settings.from_preset("best")
