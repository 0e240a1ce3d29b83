"""``>>>`` lines of docstrings as code: Markdown would take them for quotations."""

from __future__ import annotations

from typing import Any

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

BEFORE_FENCES = 30


def on_config(config: Any) -> None:
    config.markdown_extensions.append(Conversations())


class Conversations(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  # Markdown's own name
        md.preprocessors.register(_Fencer(md), "conversations", BEFORE_FENCES)


class _Fencer(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        """Put a fence around every paragraph that begins with ``>>>``."""
        fenced, inside, talking = list[str](), False, False
        for line in [*lines, ""]:
            inside ^= line.lstrip().startswith("```")
            if not inside and not talking and line.startswith(">>> "):
                talking = True
                fenced.append("```pycon")
            elif talking and not line.strip():
                talking = False
                fenced.append("```")
            fenced.append(line)
        return fenced[:-1]
