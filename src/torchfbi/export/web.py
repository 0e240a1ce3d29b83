"""The explainer as a folder that any file server makes a page of."""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from torchfbi.errors import ExportError
from torchfbi.export.runtime import copy_runtime
from torchfbi.models.photos import CAT, COFFEE

EXAMPLES = (COFFEE, CAT)
"""The photos to try."""


def write_page(
    explainer: Path, folder: Path, metadata: dict[str, Any], runtime: Path | None = None
) -> None:
    """Put the page, two photos to try, ONNX Runtime and an exported explainer into a folder.

    Nothing in it asks for anything beyond the folder, and the page's content policy forbids it.

    Args:
        explainer: the ONNX file.
        folder: where to; replaced as a whole if it is such a page already.
        metadata: what the file tells about itself, which the page needs as well.
        runtime: the archive of ONNX Runtime Web; see ``copy_runtime``.

    Raises:
        ExportError: the folder holds something else, or see ``copy_runtime``.
    """
    if folder.exists() and not _is_ours(folder):
        raise ExportError(f"{folder} exists and is no page of torchfbi: name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".torchfbi-") as temporary:
        page = Path(temporary) / "page"
        with as_file(files("torchfbi.export") / "page") as source:
            shutil.copytree(source, page)
        for example in EXAMPLES:
            shutil.copyfile(example, page / example.name)
        copy_runtime(page / "ort", runtime)
        shutil.copyfile(explainer, page / "explainer.onnx")
        (page / "explainer.json").write_text(json.dumps(metadata))
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        page.rename(folder)


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and (not any(folder.iterdir()) or (folder / "explainer.json").exists())
