"""Questions about photos answered, one after the other, by whoever has the networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from torchfbi.api import explain
from torchfbi.evaluate.compare import Comparison, compare
from torchfbi.explanation.explanation import Explanation
from torchfbi.explanation.reuse import Forwards
from torchfbi.method.settings import Settings
from torchfbi.models import Model
from torchfbi.models.images import Photo
from torchfbi.models.source import Source
from torchfbi.sweep import Sweep, sweep

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
        source: where that network comes from.
        fit: where nothing exceeds tau, take one that something exceeds.
        fitted_from: the tau that was asked for, where another one was taken.
    """

    token: str
    photo: Photo
    model: str
    target: str | None
    settings: Settings
    source: Source
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


class Desk:
    """Answers questions. What is asked is a method, and ``view`` is how its answer is shown.

    Args:
        load: a network, by the name that it has here; called when it is first asked for.
        remembered: how many forward passes are kept, with all that they saw.
        check: called now and then in long work, with whatever; ends it by what it raises.
    """

    def __init__(
        self,
        load: Callable[[str], Model],
        remembered: int,
        check: Callable[..., None],
    ) -> None:
        self._load = load
        self._loaded: dict[str, Model] = {}
        self._remembered, self._check = remembered, check
        self.forget()

    def forget(self) -> None:
        """Forget the forward passes."""
        # The one thread that explains is alone with them, and nobody changes the networks.
        self.forwards = Forwards(self._remembered, stays=True)

    def answer(
        self,
        question: Question,
        view: Callable[[Answer], T],
        *,
        record: bool = False,
        verify: bool = False,
    ) -> T:
        """The explanation, with its flow (``record``) or its verdict (``verify``)."""
        answer = self._explain(question, record)
        if verify:
            verdicts = answer.explanation.verify(progress=self._check)
            answer = replace(answer, explanation=replace(answer.explanation, verdicts=verdicts))
        return view(answer)

    def compare(self, question: Question, method: str, view: Callable[[Comparison], T]) -> T:
        """What another method says; ``fbi`` is with the question's own settings."""
        chosen = question.settings if method == "fbi" else method
        model = self.network(question.model)
        return view(compare(model, question.photo, [chosen], [question.target]))

    def sweep(
        self, question: Question, k: float, taus: Sequence[float | None], view: Callable[[Sweep], T]
    ) -> T:
        """One row of the grid of k and tau; without ``taus``, of those that fit the network."""
        model, target = self.network(question.model), question.target
        chosen = taus or self._thresholds(question)
        asked = {"ks": [k], "taus": chosen, "target": target, "settings": question.settings}
        return view(sweep(model, question.photo, **asked))  # type: ignore[arg-type]

    def describe(self, model: str, view: Callable[[Model], T]) -> T:
        """The network itself."""
        return view(self.network(model))

    def network(self, name: str) -> Model:
        """Loaded and captured with a grey picture: what is kept with it is nobody's photo."""
        if name not in self._loaded:
            model = self._load(name)
            explain(model, Photo(np.full((256, 256, 3), 128, np.uint8), "grey"))
            self._loaded[name] = model
        return self._loaded[name]

    def _thresholds(self, question: Question) -> list[float | None]:
        """None, and two decades up to the largest tau that anything exceeds."""
        settings = question.settings.override(tau=Settings.paper().tau)
        asked = self._explain(replace(question, settings=settings, fit=True)).question.settings
        assert asked.tau is not None
        return [None, asked.tau / 100, asked.tau / 10, asked.tau]

    def _explain(self, question: Question, record: bool = False) -> Answer:
        answer = self._ask(question, record)
        tau = answer.explanation.fitting_tau
        if not question.fit or tau is None:
            return answer
        settings, given = question.settings.override(tau=tau), question.settings.tau
        return self._ask(replace(question, settings=settings, fitted_from=given), record)

    def _ask(self, question: Question, record: bool) -> Answer:
        explanation = explain(
            self.network(question.model),
            question.photo,
            question.target,
            question.settings,
            record=record,
            forwards=self.forwards,
        )
        return Answer(question, explanation)
