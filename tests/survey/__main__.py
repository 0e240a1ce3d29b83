"""``python -m survey [NAME]...``: which architectures work, as a page of the docs.

Without names all of torchvision and transformers and one of each kind in timm are examined, with
names such as ``timm:swin*`` those alone. The page holds all that was examined so far.
"""

from __future__ import annotations

import sys
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

from survey.names import architectures, family, representatives
from survey.report import page, works
from survey.run import read, run

PAGE = Path("docs/architectures.md")
RECORD = Path("fbi-out/architectures.jsonl")
"""JSON lines, a row each. What it holds is not done again."""


def main(patterns: list[str]) -> None:
    """Examine architectures one after the other."""
    known, chosen = architectures(), representatives()
    if patterns:
        chosen = [name for name in chosen if any(fnmatchcase(name, p) for p in patterns)]
        chosen = chosen or [name for name in known if name in patterns]
    RECORD.parent.mkdir(exist_ok=True)
    run(chosen, RECORD, each=lambda row: print(row.name, row.refused or works(row), flush=True))
    rows = [row for row in read(RECORD) if row.name in known]
    PAGE.write_text(page(rows, Counter(map(family, known))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
