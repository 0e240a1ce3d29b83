"""All methods by name, each with its source."""

from __future__ import annotations

import difflib

from torchfbi.errors import SettingsError
from torchfbi.evaluate.peers import captum, controls, lrp, own
from torchfbi.evaluate.peers.cam import cam, guided_grad_cam
from torchfbi.evaluate.peers.deeplift import deeplift
from torchfbi.evaluate.peers.excitation import contrastive_excitation_backprop
from torchfbi.evaluate.peers.method import Attribute, Family, Method, Reduction
from torchfbi.evaluate.peers.rectgrad import rectgrad
from torchfbi.evaluate.peers.rise import rise
from torchfbi.method.settings import PRESETS, Settings

_Row = tuple[str, Attribute, str]

_SIGNALS: list[_Row] = [
    ("gradient", captum.gradient, "Simonyan et al. 2014, section 3"),
    ("guided-backprop", own.walk(own.GUIDED_BACKPROP), "Springenberg et al. 2015, section 3.4"),
    ("deconvnet", own.walk(own.DECONVNET), "Zeiler and Fergus 2014, section 2.1"),
    ("smoothgrad-squared", captum.smoothgrad_squared, "Hooker et al. 2019, section 4.2"),
    ("guided-grad-cam", guided_grad_cam, "Selvaraju et al. 2017, section 3.1"),
    ("rectgrad", rectgrad, "Kim et al. 2019, section 4"),
]

_CONTRIBUTIONS: list[_Row] = [
    ("input-x-gradient", captum.input_x_gradient, "Shrikumar et al. 2016, section 2"),
    ("integrated-gradients", captum.integrated_gradients, "Sundararajan et al. 2017, section 3"),
    ("deeplift", deeplift, "Shrikumar et al. 2017, section 3.5.2 (rescale rule)"),
    ("captum-lrp", lrp.captum, "Bach et al. 2015, section 2.4 (epsilon rule)"),
    (
        "zennit-epsilon-plus-flat",
        lrp.zennit("EpsilonPlusFlat"),
        "Anders et al. 2021, section 3.2 (Zennit)",
    ),
    (
        "zennit-epsilon-gamma-box",
        lrp.zennit("EpsilonGammaBox"),
        "Montavon et al. 2019, section 10.2.3 (as in Zennit)",
    ),
    (
        "contrastive-excitation-backprop",
        contrastive_excitation_backprop,
        "Zhang et al. 2016, section 3.3",
    ),
    ("occlusion", captum.occlusion, "Zeiler and Fergus 2014, section 4.2"),
    ("lime", captum.lime, "Ribeiro et al. 2016, sections 3.3 and 3.4"),
    ("rise", rise, "Petsiuk et al. 2018, section 3"),
    ("grad-cam", cam("GradCAM"), "Selvaraju et al. 2017, section 3"),
    ("grad-cam++", cam("GradCAMPlusPlus"), "Chattopadhay et al. 2018, section 3"),
    ("layer-cam", cam("LayerCAM"), "Jiang et al. 2021, section III"),
    ("finer-cam", cam("FinerCAM"), "Zhang et al. 2025, section 3 (Finer-CAM)"),
    ("score-cam", cam("ScoreCAM"), "Wang et al. 2020, section 3"),
]

_CONTROLS: list[_Row] = [
    ("random", controls.random, "uniform noise"),
    ("centre", controls.centre, "Zhang et al. 2018, section 5.1 (the centre as an answer)"),
    ("edge", controls.edge, "Adebayo et al. 2018, section 1 (an edge detector)"),
    ("gate", controls.gate, "Draelos and Carin 2020 (HiResCAM): where to look, without any detail"),
    ("edge-x-gate", controls.edge_x_gate, "edge times gate"),
]


def _named() -> dict[str, Method]:
    groups: list[tuple[Family, Reduction, list[_Row]]] = [
        ("peer", "magnitude", _SIGNALS),
        ("peer", "positive", _CONTRIBUTIONS),
        ("control", "positive", _CONTROLS),
    ]
    methods = [
        _of_settings("fbi", Settings.contrast()),
        _of_settings("fbi-paper", Settings.paper()),
        _of_settings("fbi-plain", Settings.plain()),
    ]
    for family, reduction, rows in groups:
        for name, attribute, source in rows:
            methods.append(Method(name, family, reduction, source, attribute))
    return {method.name: method for method in methods}


def _of_settings(name: str, settings: Settings) -> Method:
    source = f"this package, settings {settings.preset!r}"
    if settings.preset == "paper":
        source = "Balu et al. 2017, sections 2 and 3"
    selects = settings.tau is not None or settings.k < 1
    then = own.walk(settings.override(tau=None, k=1.0)) if selects else None
    reduction: Reduction = "positive" if settings.values == "evidence" else "magnitude"
    return Method(name, "fbi", reduction, source, own.walk(settings), then, settings)


METHODS: dict[str, Method] = _named()
"""Every method by name: ours, signals, contributions, controls."""


def find(method: str | Settings | Method) -> Method:
    """A method by its name.

    Args:
        method: one of ``METHODS``; ``"fbi:<preset>"``; ``Settings``, for our own walk with them;
            or a ``Method``, which is returned as it is.

    Raises:
        SettingsError: there is no such method.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, Settings):
        return _of_settings(f"fbi:{method.preset}", method)
    if method in METHODS:
        return METHODS[method]
    if str(method).startswith("fbi:"):
        return _of_settings(method, Settings.from_preset(method.removeprefix("fbi:")))
    close = difflib.get_close_matches(str(method).lower(), METHODS, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise SettingsError(
        f"there is no method {method!r}.{hint} Known are {', '.join(METHODS)}, and "
        f"{', '.join(f'fbi:{preset}' for preset in PRESETS)}."
    )
