"""``torchfbi serve`` as a user would start it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """The address and the process of a server, until the block ends."""
    command = [sys.executable, "-u", "-m", "torchfbi", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = iter(server.stdout.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://\S+/", line)))
            yield url, server.pid
        finally:
            server.terminate()
