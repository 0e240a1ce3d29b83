"""A visitor's network, in a process of its own: it may be made to harm whoever runs it.

The file is data, and nothing in it is run as code. But it says how much memory and time it takes,
and what PyTorch is called with. So its process may take only so much memory and write no file; it
is killed where an answer takes too long, and when the visitor leaves. It answers with bytes, which
are never unpickled.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from torchfbi.errors import LimitError, TorchFBIError, first_line
from torchfbi.models import Model, onnx
from torchfbi.models.source import Source
from torchfbi.system import children, forked
from torchfbi.web.desk import Desk
from torchfbi.web.limits import Limits

MARK = "dropped-"
"""Begins the name of each such network, and of no other."""

LOOK = 0.02
"""Seconds between two looks whether anybody still waits for an answer."""

MOST = 2**26
"""Bytes of an answer: the flow of a deep network, with its pictures, has a few million."""


class EndedError(LimitError):
    """The process was ended, and the network is gone with it."""


class Guest:
    """The process. Its questions are those of a ``Desk`` with views that return bytes.

    Args:
        content: an ONNX file.
        source: what it is called, and what is said about its inputs.
        limits: of its memory, and of the seconds that an answer may take.
    """

    def __init__(self, content: bytes, source: Source, limits: Limits) -> None:
        self.source, self._limits = source, limits
        # The second is what PyTorch imports at the first capture, for a second.
        processes = children.context(__name__, "torch.export._trace")
        self._pipe, theirs = processes.Pipe()
        self._gone = processes.Event()
        of_process = theirs, self._gone, source, limits.memory
        self.process = processes.Process(target=_host, args=of_process, daemon=True)
        self.process.start()
        theirs.close()
        with contextlib.suppress(OSError):  # it has ended already, as the first question will find
            self._pipe.send_bytes(content)

    def ask(self, check: Callable[[], None], what: str, *asked: Any, **how: Any) -> bytes:
        """The answer of one of the desk's methods.

        Args:
            check: raises LimitError where nobody waits for it any longer.
            what: the method.
            asked, how: its arguments.

        Raises:
            EndedError: there was none in time, or the process broke down.
            TorchFBIError: it was refused.
        """
        self._gone.clear()
        end = time.monotonic() + self._limits.seconds
        try:
            self._pipe.send((what, asked, how))
            while not self._pipe.poll(LOOK):
                try:
                    check()
                except LimitError:
                    self._gone.set()
                if time.monotonic() > end:
                    raise EndedError(
                        f"{self.source.name} gave no answer within {self._limits.seconds:g} s and "
                        "was put out: it is too large for this server."
                    )
            answer = self._pipe.recv_bytes(MOST)
        except (EOFError, OSError):
            raise EndedError(
                f"{self.source.name} was put out: it broke down, or took more memory than the "
                f"{self._limits.memory / 2**30:g} GiB that a visitor's network gets here."
            ) from None
        if answer[:1] == _REFUSED:
            raise TorchFBIError(answer[1:].decode("utf-8", "replace"))
        return answer[1:]

    def close(self) -> None:
        """End the process, whatever it does, and with it all that it holds."""
        self.process.kill()


_ANSWERED, _REFUSED = b"+", b"-"


def _host(pipe: Connection, gone: Any, source: Source, memory: int) -> None:
    """What runs in the process: answers, until nobody asks any longer."""
    children.belong()
    forked.unharmed()
    _limit(memory)

    def check(*_: object) -> None:
        if gone.is_set():
            raise LimitError("Nobody waits for this any longer.")

    content = pipe.recv_bytes()

    def load(_: str) -> Model:
        return onnx.loads(content, source.name).with_preprocess(**source.said)

    desk = Desk(load, remembered=0, check=check)
    with contextlib.suppress(EOFError):
        while True:
            what, asked, how = pipe.recv()
            try:
                answer = _ANSWERED + getattr(desk, what)(*asked, **how)
            except TorchFBIError as error:
                answer = _REFUSED + str(error).encode("utf-8", "replace")
            except Exception as error:  # of PyTorch, which the visitor's file provoked
                text = f"{source.name} cannot be explained: {first_line(error)}"
                answer = _REFUSED + text.encode("utf-8", "replace")
            del what, asked, how  # no photo stays
            pipe.send_bytes(answer)


def _limit(memory: int) -> None:
    """No more than so many bytes above those of an empty process; no file, no core dump, and not a
    word on the owner's terminal."""
    import resource  # not on Windows

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory,) * 2)
    for nothing in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(nothing, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
