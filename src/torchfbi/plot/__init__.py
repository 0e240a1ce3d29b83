"""Figures of explanations, of the information flow and of sweeps. Nothing here touches pyplot."""

from torchfbi.plot.animation import flow_animation
from torchfbi.plot.explanation import explanation_figure
from torchfbi.plot.files import FORMATS, encode, save
from torchfbi.plot.flow import flow_figure
from torchfbi.plot.sweep import sweep_figure

__all__ = [
    "FORMATS",
    "encode",
    "explanation_figure",
    "flow_animation",
    "flow_figure",
    "save",
    "sweep_figure",
]
