"""The documentation's code runs: the python blocks of a page, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from torchfbi.models.torchvision import import_torchvision

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["batch.md", "peers.md", "targets.md"])
# pytorch-grad-cam's ROAD metrics put tensors where NumPy 2 wants arrays.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept")
def test_every_block_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_torchvision()  # so that a page may say `import torchvision` wherever we are
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text()
    names: dict[str, object] = {"__name__": page}
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert blocks
    for block in blocks:
        above = text[: block.start(1)].count("\n")  # so that a traceback names the page's line
        exec(compile("\n" * above + block[1], str(DOCS / page), "exec"), names)
