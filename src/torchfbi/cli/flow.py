"""``torchfbi flow``: the information flow, layer by layer, as a figure and an animation."""

from __future__ import annotations

import typer

from torchfbi import api, plot
from torchfbi.cli import options, report
from torchfbi.models import DEFAULT, load


def flow(
    image: options.Image,
    model: options.ModelName = DEFAULT,
    target: options.Target = None,
    preset: options.Preset = "contrast",
    k: options.K = None,
    tau: options.Tau = None,
    threshold: options.ThresholdText = None,
    override: options.Override = None,
    out: options.Out = options.OUT,
    json: options.Json = False,
    dark: options.Dark = False,
    format: options.Format = "png",
    dpi: options.Dpi = 150,
    layers: int = typer.Option(8, min=2, max=9, help="How many layers the figure shows."),
    animation: str = typer.Option("gif", help="The animation's format: gif or apng."),
) -> None:
    """Draw how the information flows from the top feature maps to the pixels."""
    settings = options.settings_from(preset, k, tau, threshold, override)
    explanation = api.explain(load(model), image, target, settings, record=True)
    path = report.Names(out).new(image.name, "flow")
    figure = path.with_name(f"{path.name}.{format}")
    moving = path.with_name(f"{path.name}.{animation}")
    plot.save(plot.flow_figure(explanation, dark=dark, layers=layers), figure, dpi=dpi)
    plot.flow_animation(explanation, moving, dark=dark)
    if json:
        densities = {layer.layer: layer.density[0].item() for layer in explanation.layers}
        files = [str(figure), str(moving)]
        report.print_json({"title": explanation.title(), "density": densities, "files": files})
        return
    report.print_top(explanation)
    report.print_files([figure, moving])
