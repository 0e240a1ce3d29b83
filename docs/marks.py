"""What is measured is written into the text between two marks: ``<!-- NAME -->``."""

from __future__ import annotations

import re
from pathlib import Path


def fill(page: Path, part: str, found: str) -> None:
    """Put what was found between ``<!-- part -->`` and ``<!-- end of part -->`` in a page."""
    begin, end = f"<!-- {part} -->\n", f"<!-- end of {part} -->"
    pattern = re.compile(f"({re.escape(begin)}).*?({re.escape(end)})", re.DOTALL)
    text, count = pattern.subn(
        lambda match: f"{match[1]}{found}\n{match[2]}", page.read_text(encoding="utf-8")
    )
    if not count:
        raise SystemExit(f"{page} has no marks for {part!r}.")
    page.write_text(text, encoding="utf-8")
