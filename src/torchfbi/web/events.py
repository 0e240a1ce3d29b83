"""What happens when a visitor does something. Knows nothing of how the page is laid out."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from torchfbi.errors import InputError, SettingsError, TorchFBIError
from torchfbi.images import Photo
from torchfbi.settings import Settings
from torchfbi.web import service, views
from torchfbi.web.desk import Desk, Question
from torchfbi.web.knobs import NONE, Knobs

CELLS = 36
"""How many cells a sweep may have."""


@dataclass(frozen=True)
class Asked:
    """What a visitor looks at.

    Args:
        photo: the token of the photo; empty before there is one.
        target: the class, if one was chosen.
        answer: the token of the answer; empty before there is one.
    """

    photo: str = ""
    target: int | None = None
    answer: str = ""


Shown = tuple[Asked, str, str, str]
"""What changes with every answer: the state, the explanation, the classes, the downloads."""


class Events:
    """One method for each thing that a visitor does.

    ``shown`` are always the values of the knobs, as ``Knobs.values`` orders them.

    Args:
        desk: answers the questions.
        photos: the example photos by name.
    """

    def __init__(self, desk: Desk, photos: dict[str, Photo]) -> None:
        self._desk, self._photos = desk, photos

    def photo(
        self, request: gr.Request, event: gr.EventData, model: str, preset: str, *shown: Any
    ) -> Shown:
        """A photo was sent, and has a token."""
        return self._answer(request, Asked(str(event.token)), model, preset, shown)

    def example(
        self, request: gr.Request, event: gr.EventData, model: str, preset: str, *shown: Any
    ) -> Shown:
        """An example was chosen."""
        with _said():
            if event.name not in self._photos:
                raise InputError("There is no such example.")
            photo = self._photos[event.name]
            token = self._desk.photos.put(photo, 0, request.session_hash)  # it is kept anyway
        return self._answer(request, Asked(token), model, preset, shown)

    def target(
        self,
        request: gr.Request,
        event: gr.EventData,
        asked: Asked,
        model: str,
        preset: str,
        *shown: Any,
    ) -> Shown:
        """One of the most probable classes was chosen."""
        return self.other(request, event.number, asked, model, preset, *shown)

    def other(
        self,
        request: gr.Request,
        target: int | None,
        asked: Asked,
        model: str,
        preset: str,
        *shown: Any,
    ) -> Shown:
        """A class was chosen by its name."""
        return self._answer(request, replace(asked, target=target), model, preset, shown)

    def model(
        self, request: gr.Request, asked: Asked, model: str, preset: str, *shown: Any
    ) -> tuple[Any, ...]:
        """Another network was chosen: other classes."""
        with _said():
            labels = self._desk.model(model).labels
        classes = gr.update(choices=[(name, i) for i, name in enumerate(labels)], value=None)
        asked = replace(asked, target=None)
        return *self._answer(request, asked, model, preset, shown), classes

    def preset(self, request: gr.Request, asked: Asked, model: str, preset: str) -> tuple[Any, ...]:
        """A preset was chosen: all knobs move."""
        shown = Knobs.values(Settings.from_preset(preset))
        return *self._answer(request, asked, model, preset, shown), *shown

    def knob(
        self, request: gr.Request, asked: Asked, model: str, preset: str, *shown: Any
    ) -> Shown:
        """A knob was turned."""
        return self._answer(request, asked, model, preset, shown)

    def flow(self, asked: Asked, drawn: str, looking: bool) -> tuple[Any, Any]:
        """The flow is looked at: draw it, if it is not that of this answer already."""
        if not looking or not asked.answer or asked.answer == drawn:
            return gr.skip(), gr.skip()
        with _said():
            explanation = self._desk.explain(self._question(asked), record=True)
            return views.flow_view(explanation), asked.answer

    def compare(self, asked: Asked, methods: Sequence[str]) -> Iterator[str]:
        """Several methods are asked; each shows up as soon as it is there."""
        with _said():
            if not methods:
                raise InputError("Choose at least one method.")
            found = []
            for comparison in self._desk.compare(self._question(asked), methods):
                found.append(comparison)
                yield views.compare_view(found, len(methods))

    def sweep(self, asked: Asked, ks: str, thresholds: str) -> Iterator[str]:
        """The grid of k and threshold; each row shows up as soon as it is there."""
        with _said():
            rows, columns = _numbers(ks), [_threshold(part) for part in _parts(thresholds)]
            if not rows or not columns or len(rows) * len(columns) > CELLS:
                raise SettingsError(
                    f"Give at least one k and one threshold, and at most {CELLS} cells: these are "
                    f"{len(rows)} × {len(columns)}."
                )
            found = []
            for row in self._desk.sweep(self._question(asked), rows, columns):
                found.append(row)
                yield views.sweep_view(found, len(rows))

    def explain(
        self,
        request: gr.Request,
        photo: dict,  # type: ignore[type-arg]  # Gradio reads the type and knows no parameters
        target: str = "",
        model: str = "",
        preset: str = "contrast",
        settings: dict | None = None,  # type: ignore[type-arg]
    ) -> dict:  # type: ignore[type-arg]
        """Explain a photo: ``Client(url).predict(handle_file("cat.jpg"), api_name="/explain")``.

        The uploaded file is read and deleted. Other parameters and the result: see
        ``service.question`` and ``service.describe``.
        """
        with _said():
            read = self._desk.read(*_uploaded(photo))
            question = service.question(self._desk, read, target, model, preset, settings)
            return service.describe(*service.answer(self._desk, question, request.session_hash))

    def left(self, request: gr.Request) -> None:
        """The visitor has closed the page: nothing of theirs is kept."""
        if request.session_hash:
            self._desk.photos.drop(request.session_hash)
            self._desk.questions.drop(request.session_hash)

    def _question(self, asked: Asked) -> Question:
        if not asked.answer:
            raise InputError("Choose a photo first.")
        return self._desk.questions.get(asked.answer)

    def _answer(
        self, request: gr.Request, asked: Asked, model: str, preset: str, shown: Sequence[Any]
    ) -> Any:
        if not asked.photo:
            return asked, gr.skip(), gr.skip(), gr.skip()
        with _said():
            owner = request.session_hash
            photo = self._desk.photos.get(asked.photo, owner)
            question = Question(photo, model, asked.target, Knobs.settings(preset, shown))
            answer, token = service.answer(self._desk, question, owner)
        return (
            replace(asked, answer=token),
            views.explanation_view(answer),
            views.classes_view(answer),
            views.download_view(answer, token),
        )


def _uploaded(file: Any) -> tuple[bytes, str]:
    """The content and the name of a file that was uploaded a moment ago. It is deleted.

    Raises:
        InputError: it is anything else.
    """
    folder = Path(get_upload_folder()).resolve()
    path = file.get("path") if isinstance(file, dict) else None
    found = Path(path).resolve() if isinstance(path, str) else folder
    if not (found.is_relative_to(folder) and found.is_file()):
        raise InputError(
            "The photo is no file that was just uploaded: wrap it in handle_file(...)."
        )
    content = found.read_bytes()
    found.unlink(missing_ok=True)
    return content, str(file.get("orig_name") or found.name)[:200]


@contextmanager
def _said() -> Iterator[None]:
    """What was wrong, as a message on the page."""
    try:
        yield
    except TorchFBIError as error:
        text = html.escape(str(error))
        raise gr.Error(text, title="That did not work", print_exception=False) from error


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r"[,;\s]+", text) if part]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in _parts(text)]
    except ValueError:
        raise SettingsError(f"{text!r} are no numbers: write for example 0.1, 0.5, 1.") from None


def _threshold(text: str) -> str | None:
    """A number alone is an absolute threshold, the paper's tau."""
    if text == NONE:
        return None
    return text if ":" in text else f"absolute:{text}"
