"""Questions about photos and their answers: which networks there are, what is kept, whose turn."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from torchfbi.api import explain
from torchfbi.errors import ImageError, ModelError, SettingsError
from torchfbi.evaluate.compare import Comparison, compare
from torchfbi.evaluate.peers import METHODS
from torchfbi.explanation.explanation import Explanation
from torchfbi.explanation.reuse import Forwards
from torchfbi.method.settings import Settings
from torchfbi.models import Model
from torchfbi.models.images import Photo
from torchfbi.sweep import Sweep, sweep
from torchfbi.web.limits import Limits, Worker
from torchfbi.web.store import Store

SLOW = {
    "integrated-gradients",
    "lime",
    "occlusion",
    "rise",
    "score-cam",
    "smoothgrad-squared",
}
"""Methods of hundreds of forward passes: not for a page on which others wait."""

PEERS = tuple(name for name in METHODS if name not in SLOW)

CELLS = 12
"""How many thresholds a row of a sweep may have."""

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Args:
        token: of the photo.
        photo: the photo.
        model: the name of one of the service's networks.
        target: the class: a number, a name, ``top2``; None for the most probable one.
        settings: the method's.
        fit: where nothing exceeds tau, take one that something exceeds.
        fitted_from: the tau that was asked for, where another one was taken.
    """

    token: str
    photo: Photo
    model: str
    target: str | None
    settings: Settings
    fit: bool = False
    fitted_from: float | None = None


@dataclass(frozen=True)
class Answer:
    """A question and its explanation.

    Args:
        question: what was asked.
        explanation: of the one photo and one class.
    """

    question: Question
    explanation: Explanation

    @property
    def target(self) -> int:
        """The number of the class that was explained."""
        assert self.explanation.target is not None  # only a function as target leaves it open
        return int(self.explanation.target[0])

    @property
    def stem(self) -> str:
        """What its files are called: photo and class, in letters that every file system takes."""
        parts = Path(self.explanation.photos[0].name).stem, self.explanation.label(self.target)
        return "-".join(re.sub(r"[^\w]+", "-", part).strip("-")[:60] or "photo" for part in parts)


class Service:
    """Answers questions about photos: one is decoded at a time, one is explained at a time.

    Args:
        networks: what loads each network, by the name that it has here. It is called when the
            network is first asked for.
        limits: what a visitor may ask for.
    """

    def __init__(self, networks: Mapping[str, Callable[[], Model]], limits: Limits) -> None:
        self.networks = dict(networks)
        self.limits = limits
        self.store = Store(limits.photos, limits.age, limits.away, self._forget)
        self._loaded: dict[str, Model] = {}
        self._forget()
        self._reader, self._worker = Worker(limits), Worker(limits)

    async def keep(
        self, content: bytes, name: str, view: Callable[[str, Photo], T], *, stay: bool = False
    ) -> T:
        """Decode a visitor's photo and keep it; what ``view`` makes of its token and itself.

        Args:
            content: the file.
            name: what it is called.
            view: of its token and the photo.
            stay: it is that of a page that is open; see ``Store.stay``.

        Raises:
            ImageError: it is no picture, damaged, or larger than this server takes.
            LimitError: the server is busy.
        """

        def work() -> T:
            photo = self._decode(content, name)
            return view(self.store.put(photo, stay), photo)

        return await self._reader.run(work)

    def _decode(self, content: bytes, name: str) -> Photo:
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

    async def answer(
        self,
        question: Question,
        view: Callable[[Answer], T],
        *,
        record: bool = False,
        verify: bool = False,
    ) -> T:
        """The explanation as ``view`` shows it.

        Args:
            question: what is asked.
            view: of the answer.
            record: it holds the flow as well.
            verify: it holds its verdict as well: up to 60 forward passes, which end as soon as
                nobody waits for them any longer.

        Raises:
            LimitError: the server is busy; otherwise as ``torchfbi.explain``, and with ``verify``
                as ``Explanation.verify``.
        """

        def work() -> T:
            answer = self._explain(question, record)
            if verify:
                verdicts = answer.explanation.verify(progress=self._worker.check)
                answer = replace(answer, explanation=replace(answer.explanation, verdicts=verdicts))
            return view(answer)

        return await self._worker.run(work)

    async def compare(
        self, question: Question, method: str, view: Callable[[Comparison, Settings | None], T]
    ) -> T:
        """What another method says; ``fbi`` is with the question's own settings.

        Args:
            question: about which photo and class.
            method: one of ``PEERS``. The paper's gets a tau that fits the network.
            view: of the answer, and of the settings that were fitted, if any were.

        Raises:
            SettingsError: no such method.
        """
        if method not in PEERS:
            raise SettingsError(f"This server has no method {method!r}: choose {', '.join(PEERS)}.")

        def work() -> T:
            chosen: str | Settings = question.settings if method == "fbi" else method
            fitted = None
            if method == "fbi-paper":
                published = replace(question, settings=Settings.paper(), fit=True)
                chosen = fitted = self._explain(published).question.settings
            model, photo = self._network(question.model), question.photo
            return view(compare(model, photo, [chosen], [question.target]), fitted)

        return await self._worker.run(work)

    async def sweep(
        self, question: Question, k: float, taus: Sequence[float | None], view: Callable[[Sweep], T]
    ) -> T:
        """One row of the grid of k and tau; without ``taus``, of those that fit the network.

        Raises:
            SettingsError: more than ``CELLS`` thresholds, or one that does not exist.
        """
        if len(taus) > CELLS:
            raise SettingsError(f"{len(taus)} thresholds: give at most {CELLS}.")

        def work() -> T:
            model, target = self._network(question.model), question.target
            chosen = taus or self._thresholds(question)
            asked = {"ks": [k], "taus": chosen, "target": target, "settings": question.settings}
            return view(sweep(model, question.photo, **asked))  # type: ignore[arg-type]

        return await self._worker.run(work)

    def _thresholds(self, question: Question) -> list[float | None]:
        """None, and two decades up to the largest tau that anything exceeds."""
        settings = question.settings.override(tau=Settings.paper().tau)
        asked = self._explain(replace(question, settings=settings, fit=True)).question.settings
        assert asked.tau is not None
        return [None, asked.tau / 100, asked.tau / 10, asked.tau]

    async def labels(self, model: str) -> list[str]:
        """The names of a network's classes.

        Raises:
            ModelError: there is no such network here.
        """
        self.check(model)
        return await self._worker.run(lambda: list(self._network(model).labels))

    def check(self, model: str) -> None:
        """Raises:
        ModelError: there is no such network here.
        """
        if model not in self.networks:
            known = ", ".join(self.networks)
            raise ModelError(f"This server has no model {model!r}: choose {known}.")

    def warm(self) -> None:
        """Load and capture the first network, so that the first visitor does not wait for that."""
        self._network(next(iter(self.networks)))

    def close(self) -> None:
        """Stop working."""
        self._reader.close()
        self._worker.close()

    def _network(self, name: str) -> Model:
        """Loaded and captured with a grey picture: what is kept with it is nobody's photo."""
        if name not in self._loaded:
            model = self.networks[name]()
            explain(model, Photo(np.full((256, 256, 3), 128, np.uint8), "grey"))
            self._loaded[name] = model
        return self._loaded[name]

    def _explain(self, question: Question, record: bool = False) -> Answer:
        try:
            answer = self._ask(question, record)
            tau = answer.explanation.fitting_tau
            if not question.fit or tau is None:
                return answer
            settings, given = question.settings.override(tau=tau), question.settings.tau
            return self._ask(replace(question, settings=settings, fitted_from=given), record)
        finally:
            if question.token not in self.store:  # it was forgotten meanwhile
                self._forget()

    def _ask(self, question: Question, record: bool) -> Answer:
        explanation = explain(
            self._network(question.model),
            question.photo,
            question.target,
            question.settings,
            record=record,
            forwards=self._forwards,
        )
        return Answer(question, explanation)

    def _forget(self) -> None:
        """Remembered forward passes hold what they saw."""
        # The one thread that explains is alone with them, and nobody changes the networks.
        self._forwards = Forwards(stays=True)
