"""The page: what stands where, and which event belongs to what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api as gradio_api

from torchfbi.images import Photo
from torchfbi.peers import METHODS
from torchfbi.settings import Settings
from torchfbi.web import views
from torchfbi.web.desk import Desk
from torchfbi.web.events import Asked, Events
from torchfbi.web.examples import NAMES
from torchfbi.web.knobs import Knobs
from torchfbi.web.pictures import photo_uri

STATIC = Path(__file__).parent / "static"

SLOW = {
    "integrated-gradients",
    "lime",
    "occlusion",
    "rise",
    "score-cam",
    "smoothgrad-squared",
}
"""Methods of hundreds of forward passes: not for a page on which others wait."""

PEERS = [name for name in METHODS if name not in SLOW]
CHOSEN = ["fbi", "fbi-paper", "guided-backprop", "grad-cam"]

PRESETS = [
    ("contrast: for it, against its rivals", "contrast"),
    ("paper: the method as published", "paper"),
    ("plain: the bare adjoint", "plain"),
]

EMPTY = "Choose a photo: what made the network say that will glow here."
TABS = ("Explanation", "Flow", "Compare", "Sweep", "Download")


def build(desk: Desk, photos: dict[str, Photo]) -> gr.Blocks:
    """The page of a desk.

    Args:
        desk: answers the questions.
        photos: the example photos by name.
    """
    events = Events(desk, photos)
    with gr.Blocks(title="torchfbi", analytics_enabled=False, delete_cache=(60, 300)) as blocks:
        asked, drawn, looking = gr.State(Asked()), gr.State(""), gr.State(False)
        _html(views.render("top"))
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                drop = _drop(desk, photos)
                model = gr.Dropdown(list(desk.models), label="Network", value=desk.models[0])
                preset = gr.Radio(PRESETS, label="Preset", value="contrast")
                with gr.Accordion("Every setting", open=False):
                    knobs = Knobs(Settings.contrast()).controls
            with gr.Column(scale=7, min_width=300), gr.Tabs() as tabs:
                with gr.Tab(TABS[0]), gr.Row(equal_height=False):
                    with gr.Column(scale=5, min_width=280):
                        explanation = _part("explanation", views.empty_view(EMPTY))
                    with gr.Column(scale=3, min_width=220):
                        classes = _part("classes", "")
                        other = gr.Dropdown(
                            [(name, i) for i, name in enumerate(desk.model(desk.models[0]).labels)],
                            label="Another class",
                            value=None,
                        )
                with gr.Tab(TABS[1]):
                    flow = _part("flow", views.empty_view("The flow of what you explain."))
                with gr.Tab(TABS[2]):
                    methods = gr.CheckboxGroup(PEERS, label="Methods", value=CHOSEN)
                    compare = gr.Button("Compare them on this photo and class", variant="primary")
                    compared = _html("")
                with gr.Tab(TABS[3]):
                    with gr.Row():
                        ks = gr.Textbox("0.05, 0.2, 1", label="k: shares of the feature maps")
                        taus = gr.Textbox(
                            "none, mean:0.1, mean:0.25, mean:0.5",
                            label="Thresholds: τ as a number, or mean:0.25 and the like",
                        )
                    sweep = gr.Button("Draw the grid", variant="primary")
                    swept = _html("")
                with gr.Tab(TABS[4]):
                    downloads = _html(views.empty_view("The files of what you explain."))

        shown: list[Any] = [asked, explanation, classes, downloads]
        how: list[Any] = [model, preset, *knobs]
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        latest = {**quiet, "trigger_mode": "always_last"}
        answers = [
            drop.photo(events.photo, how, shown, **quiet),
            drop.example(events.example, how, shown, **latest),
            classes.ask(events.target, [asked, *how], shown, **latest),
            other.input(events.other, [other, asked, *how], shown, **latest),
            model.input(events.model, [asked, *how], [*shown, other], **latest),
            preset.input(events.preset, [asked, model, preset], [*shown, *knobs], **latest),
            gr.on([_turned(knob) for knob in knobs], events.knob, [asked, *how], shown, **latest),
        ]
        # Past the queue: while the end of such an event closed the stream that the browser reads,
        # the answer to a click at that moment got lost, and with it all later ones.
        look = tabs.select(_looks, None, looking, queue=False, **quiet)
        for answer in (*answers, look):
            answer.then(events.flow, [asked, drawn, looking], [flow, drawn], queue=False, **latest)
        compare.click(events.compare, [asked, methods], compared, **quiet)
        sweep.click(events.sweep, [asked, ks, taus], swept, **quiet)
        gradio_api(events.explain, api_name="explain")
        blocks.unload(events.left)
    return blocks


def _looks(event: gr.SelectData) -> bool:
    """Whether it is the flow that is looked at now."""
    return event.value == TABS[1]


def _part(name: str, value: str, **props: Any) -> gr.HTML:
    """A part of the page with a script of its own."""
    script = (STATIC / f"{name}.js").read_text(encoding="utf-8")
    return _html(value, script, elem_id=f"fbi-{name}", **props)


def _html(value: str, script: str | None = None, **options: Any) -> gr.HTML:
    """HTML in our own style, not in that of Gradio's texts."""
    return gr.HTML(value, js_on_load=script, apply_default_css=False, **options)


def _drop(desk: Desk, photos: dict[str, Photo]) -> gr.HTML:
    thumbnails = [
        (name, photo_uri(photo.pixels, 120), NAMES[name]) for name, photo in photos.items()
    ]
    return _part("drop", views.render("drop", examples=thumbnails), most=desk.limits.upload)


def _turned(knob: Any) -> Any:
    """The event of a finished change: letters and digits are typed one by one."""
    return knob.submit if isinstance(knob, gr.Textbox | gr.Number) else knob.input
