"""A file of results that survives a crash: JSON lines, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchfbi.capture.capture import capture
from torchfbi.capture.fingerprint import graph_hash, tensor_bytes
from torchfbi.errors import FileFormatError, SettingsError
from torchfbi.evaluate.benchmark import Suite
from torchfbi.method.settings import PRESETS, Settings
from torchfbi.system.reading import whole
from torchfbi.system.versions import versions

SCHEMA = 2

MOST_BYTES = 2**30
"""Of a record."""


class Record:
    """Rows that are appended one by one, after a header that says what they belong to.

    What a crash left of a last line is cut off when the file is opened again.

    Args:
        path: the file; it is made with its folder if it does not exist. ``rows`` is what it
            held, without the header.
        header: plain JSON values, equal for all runs that may share the file.

    Raises:
        SettingsError: the file's header is another one.
        FileFormatError: a line is no JSON object.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            content = whole(path, MOST_BYTES) if path.exists() else b""
        except (OSError, ValueError) as error:
            raise FileFormatError(f"{path} is no record of results: {error}.") from error
        lines = content[: content.rfind(b"\n") + 1]
        if lines != content:
            with path.open("r+b") as file:
                file.truncate(len(lines))
        self.rows = list(self._parse(lines))
        if not self.rows:
            self.append(header)
        elif (found := self.rows.pop(0)) != header:
            differ = sorted(key for key in header if found.get(key) != header[key])
            raise SettingsError(
                f"{path} holds results for other {', '.join(differ)}: give another folder, or "
                "delete it."
            )

    def append(self, row: dict[str, Any]) -> None:
        """Write a row to the file, at once."""
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            file.write(line)

    def _parse(self, lines: bytes) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines.splitlines(), 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise FileFormatError(
                    f"{self.path}, line {number}: it is damaged. Delete the file, or give another "
                    "folder."
                )
            yield row


def header(suites: tuple[Suite, ...], seed: int) -> dict[str, Any]:
    """What results depend on besides methods and metrics, which every row names itself."""
    presets = {name: Settings.from_preset(name).to_dict() for name in PRESETS}
    details = {
        "schema": SCHEMA,
        "suites": {suite.name: _digest(suite) for suite in suites},
        "seed": seed,
        "presets": _hash(presets),
        "versions": versions(),
    }
    return {**details, "settings": _hash(details)}


def _hash(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _digest(suite: Suite) -> str:
    """Changes with any scene, and with what the network computes."""
    graph = capture(suite.model.module, suite.scenes[0].x[None], anew=True)
    digest = hashlib.sha256(graph_hash(graph).encode())
    for scene in suite.scenes:
        digest.update(
            f"{scene.name}\0{scene.target}\0{scene.rival}".encode("utf-8", "surrogatepass")
        )
        for part in (scene.x, scene.mask, scene.cell):
            digest.update(b"-" if part is None else tensor_bytes(part))
    return digest.hexdigest()[:16]
