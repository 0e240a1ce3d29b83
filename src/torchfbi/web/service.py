"""What the server answers: which networks there are, what is kept, and whose turn it is."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from PIL import Image

from torchfbi.errors import ImageError, ModelError, SettingsError
from torchfbi.evaluate.compare import Comparison
from torchfbi.evaluate.peers import METHODS
from torchfbi.models import Model
from torchfbi.models.images import Photo
from torchfbi.models.source import Source
from torchfbi.sweep import Sweep
from torchfbi.web.desk import Answer, Desk, Question
from torchfbi.web.guest import MARK, EndedError, Guest
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

LEAST = 2**16
"""What a photo counts for at least, in bytes: millions of tiny ones would take memory as well."""

REMEMBERED = 2
"""Forward passes that are kept: another class then costs the walk alone."""

T = TypeVar("T")


class Service:
    """Answers questions about photos: one is decoded at a time, one is explained at a time.

    Args:
        networks: each network, by the name that it has here; loaded when it is first asked for.
        limits: what a visitor may ask for.
        loaded: called with each network as soon as it is loaded.
    """

    def __init__(
        self,
        networks: Mapping[str, Source],
        limits: Limits,
        loaded: Callable[[Model], None] = lambda model: None,
    ) -> None:
        self.networks = dict(networks)
        self.limits = limits
        self.photos: Store[Photo] = Store(
            limits.photos,
            limits.age,
            limits.away,
            lambda photo: max(LEAST, photo.pixels.nbytes),
            lambda gone: self._desk.forget(),  # remembered forward passes hold what they saw
        )
        self.guests: Store[Guest] = Store(
            limits.networks,
            limits.age,
            limits.away,
            lambda guest: 1,
            _close,
            "network: drop it again",
            MARK,
        )
        self._reader, self._worker = Worker(limits), Worker(limits)

        def load(name: str) -> Model:
            model = self.networks[name].load()
            loaded(model)
            return model

        self._desk = Desk(load, REMEMBERED, self._worker.check)

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
            return view(self.photos.put(photo, stay), photo)

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

    async def welcome(
        self,
        content: bytes,
        name: str,
        said: dict[str, Any],
        view: Callable[[Model], bytes],
        *,
        stay: bool = False,
    ) -> tuple[str, bytes]:
        """Keep a visitor's network, in a process of its own, once it was captured.

        Args:
            content: an ONNX file.
            name: what it is called.
            said: about its inputs, see ``Model.with_preprocess``.
            view: of the network; pickled.
            stay: as for ``keep``.

        Returns:
            By which name questions know it, and the view.

        Raises:
            ModelError: visitors may bring none here, or not this kind of file.
            LimitError: the server is busy, or the network takes too much time or memory.
            TorchFBIError: the network cannot be read or captured, or takes no such inputs.
        """
        if not self.limits.network:
            raise ModelError(
                f"{name} is a network, and this server explains only its owner's: torchfbi serve "
                f"--model {name}. With --allow-networks visitors may bring ONNX files."
            )
        if content.startswith(b"PK") or not name.lower().endswith(".onnx"):
            raise ModelError(
                f"{name} is refused: of visitors' networks only ONNX files (.onnx) are read, since "
                "they are nothing but data. Those of PyTorch and Keras may hold code: export it, "
                "or ask the owner of this server: torchfbi serve --model FILE."
            )

        def work() -> tuple[str, bytes]:
            token = self.guests.put(Guest(content, Source(name, said=said), self.limits), stay)
            try:
                return token, self._ask_guest(token, "describe", token, view)
            except Exception:
                self.guests.drop(token)
                raise

        return await self._worker.run(work)

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
        return await self._ask("answer", question, view, record=record, verify=verify)

    async def compare(self, question: Question, method: str, view: Callable[[Comparison], T]) -> T:
        """What another method says; ``fbi`` is with the question's own settings.

        Args:
            question: about which photo and class.
            method: one of ``PEERS``.
            view: of the answer.

        Raises:
            SettingsError: no such method.
        """
        if method not in PEERS:
            raise SettingsError(f"This server has no method {method!r}: choose {', '.join(PEERS)}.")
        return await self._ask("compare", question, method, view)

    async def sweep(
        self, question: Question, k: float, taus: Sequence[float | None], view: Callable[[Sweep], T]
    ) -> T:
        """One row of the grid of k and tau; without ``taus``, of those that fit the network.

        Raises:
            SettingsError: more than ``CELLS`` thresholds, or one that does not exist.
        """
        if len(taus) > CELLS:
            raise SettingsError(f"{len(taus)} thresholds: give at most {CELLS}.")
        return await self._ask("sweep", question, k, taus, view)

    async def describe(self, model: str, view: Callable[[Model], T]) -> T:
        """What ``view`` makes of a network.

        Raises:
            ModelError: there is no such network here.
        """
        self.source(model)
        return await self._ask("describe", model, view)

    def source(self, model: str) -> Source:
        """Where a network comes from, by the name that it has here.

        Raises:
            ModelError: there is no such network here.
            ForgottenError: it was a visitor's, and is no longer kept.
        """
        if model.startswith(MARK):
            return self.guests.get(model).source
        if model not in self.networks:
            known = ", ".join(self.networks)
            raise ModelError(f"This server has no model {model!r}: choose {known}.")
        return self.networks[model]

    def warm(self) -> None:
        """Load and capture the first network, so that the first visitor does not wait for that."""
        self._desk.network(next(iter(self.networks)))

    def tidy(self) -> None:
        """Forget what is to be forgotten."""
        self.photos.tidy()
        self.guests.tidy()

    def close(self) -> None:
        """Stop working."""
        self._reader.close()
        self._worker.close()
        self.guests.clear()

    async def _ask(self, what: str, asked: Question | str, *more: Any, **how: Any) -> Any:
        """One of the desk's methods, by the desk, or by the process of a visitor's network, whose
        views are pickled and return bytes."""
        model = asked if isinstance(asked, str) else asked.model

        def work() -> Any:
            if model.startswith(MARK):
                return self._ask_guest(model, what, asked, *more, **how)
            try:
                return getattr(self._desk, what)(asked, *more, **how)
            finally:
                if isinstance(asked, Question) and asked.token not in self.photos:
                    self._desk.forget()  # the photo was forgotten meanwhile

        return await self._worker.run(work)

    def _ask_guest(self, token: str, what: str, *asked: Any, **how: Any) -> bytes:
        try:
            return self.guests.get(token).ask(self._worker.check, what, *asked, **how)
        except EndedError:
            self.guests.drop(token)
            raise


def _close(gone: list[Guest]) -> None:
    for guest in gone:
        guest.close()
