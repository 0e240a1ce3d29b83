"""What one thread silences, all others still say."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from torchfbi.capture.capture import capture
from torchfbi.system.quiet import quiet


def elsewhere(work: object) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()  # type: ignore[arg-type]


def test_only_this_thread_is_silent(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def say() -> None:
        print("printed")
        print("printed as well", file=sys.stderr)
        warnings.warn("warned", UserWarning, stacklevel=1)
        logging.getLogger("noisy").warning("logged")

    def say_and_expect() -> None:
        with pytest.raises(UserWarning, match="warned"):  # here warnings are errors
            say()
        logging.getLogger("noisy").warning("logged")

    before = sys.stdout, sys.stderr, list(warnings.filters)
    with quiet("stdout", "stderr", loggers=["noisy"]):
        say()
        elsewhere(say_and_expect)
    assert capsys.readouterr() == ("printed\n", "printed as well\n")
    assert [record.message for record in caplog.records] == ["logged"]
    assert (sys.stdout, sys.stderr, list(warnings.filters)) == before
    say_and_expect()
    with quiet("stdout", onto="stderr", warn=True):
        say_and_expect()
    assert capsys.readouterr() == ("printed\n", "printed as well\n" + "printed\nprinted as well\n")


def test_what_another_thread_puts_back_late_is_no_longer_silent() -> None:
    """``warnings.catch_warnings`` puts back the list of filters that it found: ours in it."""
    inside, over = threading.Event(), threading.Event()

    def late() -> None:
        with warnings.catch_warnings():
            inside.set()
            over.wait()

    with ThreadPoolExecutor(1) as pool:
        with quiet("stderr"):
            waiting = pool.submit(late)
            inside.wait()
        over.set()
        waiting.result()
    with pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


def test_a_capture_silences_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []

    class Busy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            def warn() -> None:
                with pytest.raises(UserWarning):
                    warnings.warn("of another thread", UserWarning, stacklevel=1)
                heard.append(1)

            elsewhere(warn)
            warnings.warn("of its own", UserWarning, stacklevel=1)
            return self.conv(x).flatten(1)

    capture(Busy().eval(), torch.zeros(1, 3, 4, 4))
    assert heard
