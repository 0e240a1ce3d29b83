"""``torchfbi flow``: the information flow, layer by layer, as a figure and an animation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from torchfbi.cli import options, report

if TYPE_CHECKING:
    from torchfbi.method.settings import Settings
    from torchfbi.models import Model


def flow(
    image: options.Image,
    network: Model,
    settings: Settings,
    drawing: options.Drawing,
    target: options.Target = None,
    layers: Annotated[int, typer.Option(min=2, max=9, help="How many the figure shows.")] = 8,
    animation: Annotated[str, typer.Option(help="Its format: gif or apng.")] = "gif",
) -> None:
    """Draw how the information flows from the top feature maps to the pixels."""
    from torchfbi import api, plot

    with report.waiting("explaining every layer"):
        explanation = api.explain(network, image, target, settings, record=True)
    path = report.Names(drawing.out).new(image.name, "flow")
    figure = path.with_name(f"{path.name}.{drawing.format}")
    moving = path.with_name(f"{path.name}.{animation}")
    drawn = plot.flow_figure(explanation, dark=drawing.dark, layers=layers)
    plot.save(drawn, figure, dpi=drawing.dpi)
    with report.waiting("drawing the animation"):
        plot.flow_animation(explanation, moving, dark=drawing.dark)
    drawing.show(figure)
    if drawing.json:
        densities = {layer.layer: layer.density[0].item() for layer in explanation.layers}
        files = [str(figure), str(moving)]
        report.print_json({"title": explanation.title(), "density": densities, "files": files})
        return
    report.print_top(explanation)
    report.print_files([figure, moving])
