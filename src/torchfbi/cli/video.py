"""``torchfbi video``: a clip in, the same clip explained out."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchfbi import atomic
from torchfbi.cli import options, report

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from torchfbi.method.settings import Settings
    from torchfbi.models import Model
    from torchfbi.verification import Verdict


def video(
    clip: Annotated[
        Path, typer.Argument(help="A video, or a GIF.", metavar="CLIP", show_default=False)
    ],
    network: Model,
    settings: Settings,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            help="The class to explain all along: a number or a name. The one that the network "
            "sees most in the clip by default.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0.01, max=100, help="How many frames a second are explained.")
    ] = 5.0,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", help="mp4, webm or gif; by default as the clip.", show_default=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the results.")] = Path(
        "fbi-out"
    ),
    dark: Annotated[bool, typer.Option("--dark", help="On a dark background.")] = False,
    as_json: options.Json = False,
    open_: options.Open = False,
) -> None:
    """Explain a clip frame by frame, one class all along. Ctrl-C keeps what is done."""
    from torchfbi import api
    from torchfbi.models.clips import frames
    from torchfbi.plot import clip as drawn

    suffix = clip.suffix.lower().removeprefix(".")
    kind = drawn.known(format or (suffix if suffix in drawn.FORMATS else "mp4"))
    with report.waiting("looking for the class"):
        times, answers = _answers(network, clip, rate)
    asked: Any = api.resolve(target or "top1", network.labels, 1)
    number = int(asked(answers.mean(0)[None]) if callable(asked) else asked)
    probabilities = answers[:, number].tolist()
    clearest = probabilities.index(max(probabilities))
    path = report.Names(out).new(clip.name, network.labels[number])
    files = [path.with_name(f"{path.name}.{end}") for end in (kind, "json")]
    manifest: dict[str, Any] = {}
    samples: list[dict[str, Any]] = []
    verdicts: tuple[Verdict, ...] = ()

    def pictures(done: Callable[[], None], stopped: Event) -> Iterator[Image.Image]:
        nonlocal verdicts
        for now, (time, photo) in enumerate(frames(clip, rate)):
            explanation = api.explain(network, photo, number, settings)
            if now == clearest:
                verdicts = explanation.verify()
                explanation = replace(explanation, verdicts=verdicts)
            manifest.update(explanation.manifest())
            samples.append({"time": time, **manifest["samples"][0]})
            yield drawn.frame(explanation, now, times, probabilities, dark)
            done()
            if stopped.is_set():
                return

    with report.bar() as progress, _held() as stopped:
        task = progress.add_task(clip.name, total=len(times))
        moving = pictures(lambda: progress.advance(task), stopped)
        drawn.save(moving, times, files[0], 1 / rate)
        atomic.write(files[1], json.dumps({**manifest, "samples": samples}, indent=1).encode())
    if as_json:
        report.print_json({"samples": samples, "files": list(map(str, files))})
    else:
        report.console.print(
            f"explained: {network.labels[number]}, {len(samples)} of {len(times)} frames; most "
            f"probable at {times[clearest]:.1f} s ({probabilities[clearest]:.1%})"
        )
        report.print_verdicts(verdicts)
        report.print_files(files)
    options.show(files[0], open_)
    if stopped.is_set():
        raise KeyboardInterrupt


def _answers(network: Model, clip: Path, rate: float) -> tuple[list[float], Tensor]:
    """The times of the frames, and how probable each class is in each: (frames, classes)."""
    import torch

    from torchfbi import api
    from torchfbi.explanation.predict import predictor
    from torchfbi.models.clips import frames

    times: list[float] = []
    answers: list[Tensor] = []
    predict = None
    with torch.inference_mode():
        for time, photo in frames(clip, rate):
            x, *_ = api.as_batch(network, photo)
            if predict is None:
                predict, _ = predictor(network.module, x)
            times.append(time)
            answers.append(predict(x)[0].cpu())
    return times, torch.stack(answers)


@contextmanager
def _held() -> Iterator[Event]:
    """Ctrl-C is told, and stops nothing; a second one does."""
    stopped = Event()

    def tell(*_: Any) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, tell)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
