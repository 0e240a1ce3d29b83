"""A ``source`` block names a function; the site shows its code, so that no page can quote it wrong.

```source
torchfbi.method.seeds.seed
```
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"

BLOCK = re.compile(r"^( *)```source\n\s*(\S+)\n *```$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace every block by the function's code, with a link to its place in the reference."""
    return BLOCK.sub(lambda found: textwrap.indent(show(found[2]), found[1]), markdown)


def show(name: str) -> str:
    path, first, code = find(name)
    where = f"{path.relative_to(SRC.parent).as_posix()}, line {first}"
    described = re.sub(r"\._.*", "", name)  # what is private stands under what holds it
    link = f"[{described} in the reference][{described}]{{ .source }}"
    return f'```python title="{where}"\n{code}\n```\n\n{link}'


def find(name: str) -> tuple[Path, int, str]:
    """The file, the first line and the code of a function or method, without its docstring.

    Raises:
        LookupError: there is no such function.
    """
    parts = name.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        path = SRC.joinpath(*parts[:depth]).with_suffix(".py")
        if path.is_file():
            return path, *cut(path.read_text(), parts[depth:], name)
    raise LookupError(f"{name}: there is no such module.")


def cut(text: str, names: list[str], full_name: str) -> tuple[int, str]:
    node: ast.AST = ast.parse(text)
    for name in names:
        inside = {getattr(child, "name", None): child for child in ast.iter_child_nodes(node)}
        if name not in inside:
            raise LookupError(f"{full_name}: there is no {name}.")
        node = inside[name]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = text.splitlines()
    hidden: set[int] = set()
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        hidden = set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    shown = [lines[i - 1] for i in range(first, (node.end_lineno or 0) + 1) if i not in hidden]
    return first, textwrap.dedent("\n".join(shown))
