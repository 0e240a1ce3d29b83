"""Settings: presets, overrides, round trips, and clear refusals."""

import json

import pytest

from torchfbi import Settings, Threshold
from torchfbi.errors import SettingsError
from torchfbi.settings import PRESETS


def test_the_paper_preset_is_the_paper() -> None:
    settings = Settings.paper()
    assert settings.threshold == Threshold("absolute", 10.0)
    assert (settings.k, settings.rank, settings.top_k_at) == (0.5, "activation", "every layer")
    assert (settings.seed, settings.signs, settings.pooling) == ("paper", "positive", "replicate")
    assert settings.gates == "rectify"
    assert settings.subtract_bias
    assert settings.evidence_gate is None
    assert settings.place_gate is None
    assert settings.image_threshold is None
    assert not settings.antialias


def test_plain_selects_nothing() -> None:
    settings = Settings.plain()
    assert settings.threshold is None
    assert settings.k == 1.0
    assert settings.evidence_gate is None


@pytest.mark.parametrize("preset", PRESETS)
def test_the_round_trip_through_json(preset: str) -> None:
    settings = Settings.from_preset(preset, k=0.3, layers=("features.*", "head"))
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    odd = settings.override(threshold=Threshold("mass", 0.1 + 0.2), image_threshold="mass:0.5")
    assert Settings.from_dict(odd.to_dict()) == odd


def test_tau_is_an_absolute_threshold() -> None:
    assert Settings.contrast(tau=2).threshold == Threshold("absolute", 2)
    assert Settings.paper(tau=None).threshold is None
    assert Settings.paper(threshold="mass:0.5").threshold == Threshold("mass", 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 0}, r"k is 0: .* in \(0, 1\]"),
        ({"k": 1.5}, r"k is 1\.5"),
        ({"k": "half"}, "k is 'half': it must be a finite number"),
        ({"k": float("nan")}, "finite"),
        ({"k": True}, "k is True"),
        ({"seed": "two-hot"}, "seed is 'two-hot': choose one of 'paper', 'one-hot'"),
        ({"signs": "both"}, "signs is 'both'"),
        ({"pooling": "max"}, "pooling is 'max'"),
        ({"gates": "open"}, "gates is 'open'"),
        ({"threshold": "mass"}, "write KIND:NUMBER"),
        ({"threshold": "mass:1.5"}, r"mass:1\.5: the value must be in \(0, 1\]"),
        ({"threshold": "quantile:1"}, r"in \[0, 1\)"),
        ({"threshold": "area:0.5"}, "threshold kind is 'area'"),
        ({"threshold": 10}, "threshold is 10: give a Threshold"),
        ({"tau": -1}, "must be >= 0"),
        ({"tau": float("inf")}, "finite"),
        ({"tau": 1, "threshold": "mass:0.5"}, "give tau or threshold"),
        ({"evidence_gate": 1}, r"evidence_gate is 1: give a share in \[0, 1\)"),
        ({"evidence_power": -1}, "evidence_power is -1"),
        ({"evidence_gate": None}, "evidence_power needs a number as evidence_gate"),
        ({"place_gate": None}, "place_power needs a number as place_gate"),
        ({"layers": ()}, "layers must hold at least one name"),
        ({"layers": (1,)}, "layers must hold at least one name"),
        ({"place_gate": 1.0}, r"place_gate is 1.0: give a share in \[0, 1\)"),
        ({"place_power": -0.5}, "place_power is -0.5: it must be >= 0"),
        ({"antialias": 1}, "antialias must be True or False"),
        ({"image_threshold": 10}, "image_threshold is 10: give a Threshold"),
        ({"poling": "winner"}, "unknown setting poling: choose from"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.contrast(**changes)


def test_unknown_presets() -> None:
    with pytest.raises(SettingsError, match="preset 'best' is unknown: choose paper, contrast"):
        Settings.from_preset("best")
