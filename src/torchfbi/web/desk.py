"""Where questions are answered: which networks there are, what is kept, and whose turn it is."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from torchfbi.api import AnyTarget, explain
from torchfbi.errors import ImageError, ModelError
from torchfbi.evaluate.compare import Comparison, compare
from torchfbi.explanation import Explanation
from torchfbi.images import Photo
from torchfbi.models import Model, load
from torchfbi.reuse import Forwards
from torchfbi.settings import Settings
from torchfbi.sweep import Sweep, sweep
from torchfbi.web.limits import Limits, Worker
from torchfbi.web.shelf import Shelf


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        photo: the photo.
        model: one of the desk's networks.
        target: the class; None for the most probable one.
        settings: the method's knobs.
    """

    photo: Photo
    model: str
    target: AnyTarget
    settings: Settings


@dataclass(frozen=True)
class Answer:
    """A question and its explanation.

    Args:
        question: with the class that was explained as its target.
        explanation: of the one photo, without the flow.
    """

    question: Question
    explanation: Explanation

    @classmethod
    def of(cls, question: Question, explanation: Explanation) -> Answer:
        """The question with the class that was explained."""
        assert explanation.target is not None  # only a function as target leaves it open
        return cls(replace(question, target=int(explanation.target[0])), explanation)

    @property
    def target(self) -> int:
        """The number of the class that was explained."""
        assert isinstance(self.question.target, int)
        return self.question.target

    @property
    def stem(self) -> str:
        """What its files are called: photo and class, in letters that every file system takes."""
        parts = Path(self.explanation.photos[0].name).stem, self.explanation.label(self.target)
        return "-".join(re.sub(r"[^\w]+", "-", part).strip("-")[:60] or "photo" for part in parts)


class Desk:
    """Answers questions about photos, one at a time.

    Args:
        models: the names of the networks it has, as ``torchfbi.load`` takes them. They are
            loaded when they are first asked for.
        limits: what a visitor may ask for.
    """

    def __init__(self, models: Sequence[str], limits: Limits) -> None:
        self.models = tuple(models)
        self.limits = limits
        self.photos: Shelf[Photo] = Shelf(limits.photos, limits.age)
        # Not the answers: kept among the large tensors of a walk they would tear the memory into
        # pieces that cannot be given back. An answer is soon found again.
        self.questions: Shelf[Question] = Shelf(limits.questions, limits.age)
        self._worker = Worker(limits)
        self._loaded: dict[str, Model] = {}
        self._forwards = Forwards()  # the worker is alone with it

    def read(self, content: bytes, name: str) -> Photo:
        """A visitor's photo.

        Raises:
            ImageError: it is no picture, damaged, or larger than this server takes.
        """
        try:
            width, height = Image.open(io.BytesIO(content)).size
        except Exception:  # what is wrong with a file, Photo.read says better
            width = height = 0
        if width * height > self.limits.pixels:
            raise ImageError(
                f"{name} has {width * height / 1e6:.0f} million pixels, this server takes up to "
                f"{self.limits.pixels / 1e6:.0f} million. Scale it down."
            )
        return Photo.read(content, name)

    def model(self, name: str) -> Model:
        """One of this desk's networks.

        Raises:
            ModelError: it is another one, or it cannot be loaded.
        """
        if name not in self.models:
            raise ModelError(f"This server has no model {name!r}: choose {', '.join(self.models)}.")
        if name not in self._loaded:
            self._loaded[name] = load(name)
        return self._loaded[name]

    def explain(self, question: Question, *, record: bool = False) -> Explanation:
        """The explanation; with ``record`` the flow as well.

        Raises:
            LimitError: the server is busy; otherwise as ``torchfbi.explain``.
        """
        asked = question
        return self._worker.run(
            lambda: explain(
                self.model(asked.model),
                asked.photo,
                asked.target,
                asked.settings,
                record=record,
                forwards=self._forwards,
            )
        )

    def warm(self) -> None:
        """Load and capture the first network, so that the first visitor does not wait for that."""
        photo = Photo(np.full((256, 256, 3), 128, np.uint8), "grey")
        name = self.models[0]
        self._worker.run(lambda: explain(self.model(name), photo), patient=True)

    def answer(self, question: Question) -> Answer:
        """As ``explain``, with the class that was explained."""
        return Answer.of(question, self.explain(question))

    def compare(self, question: Question, methods: Sequence[str]) -> Iterator[Comparison]:
        """The answers of several methods, each as soon as it is there; ``fbi`` is with the
        question's own settings."""
        target = question.target if isinstance(question.target, int | str) else None
        for name in methods:
            method = question.settings if name == "fbi" else name
            yield self._worker.run(
                lambda method=method: compare(  # type: ignore[misc]
                    self.model(question.model), question.photo, [method], [target]
                )
            )

    def sweep(
        self, question: Question, ks: Sequence[float], thresholds: Sequence[str | None]
    ) -> Iterator[Sweep]:
        """The grid of k and threshold, row by row."""
        for k in ks:
            yield self._worker.run(
                lambda k=k: sweep(  # type: ignore[misc]
                    self.model(question.model),
                    question.photo,
                    ks=[k],
                    thresholds=thresholds,
                    target=question.target,
                    settings=question.settings,
                )
            )

    def close(self) -> None:
        """Stop working."""
        self._worker.close()
