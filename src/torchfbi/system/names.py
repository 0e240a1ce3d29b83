"""Names as they are shown: whatever a file or a class is called, nothing obeys it."""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""They move a terminal's cursor or write to its clipboard, are no XML, or are no text at all."""


def shown(text: str, instead: str = "\ufffd") -> str:
    """The text with ``instead`` in place of control characters, but for tabs and line breaks."""
    return _CONTROLS.sub(instead, text)
