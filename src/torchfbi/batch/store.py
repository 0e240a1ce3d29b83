"""The folder that a run writes: a manifest, and shards that are whole or not there.

Which shards exist is all that a run remembers, so it can be killed at any moment. A shard is
written under another name beside it and renamed; what a killed run left is deleted by the next.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from torchfbi import atomic
from torchfbi.batch.job import Job
from torchfbi.batch.rows import COLUMNS, LATER, Row, table, to_parquet
from torchfbi.errors import FileFormatError, SettingsError, StorageError
from torchfbi.system.reading import whole

MANIFEST, ROWS, LOCK = "manifest.json", "rows", ".lock"
MOST_BYTES = 2**26
"""Of a manifest."""

READ_AT_A_TIME = 64
"""Rows: the images and maps of so many are in memory."""

NEVER_MIXED = ("schema", "input", "shard")
"""Rows of another input, or cut in another way, would be found twice or not at all."""


class Store:
    """An output folder.

    Args:
        folder: it need not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def paths(self) -> list[Path]:
        """The shards that exist, in the order of the input."""
        return sorted((self.folder / ROWS).glob("*.parquet"))

    def path(self, shard: int) -> Path:
        """Where a shard is, or will be."""
        return self.folder / ROWS / f"{shard:06}.parquet"

    def missing(self, job: Job) -> list[int]:
        """The shards that are still to be made."""
        done = {path.name for path in self.paths}
        return [shard for shard in range(job.shards) if self.path(shard).name not in done]

    def manifest(self) -> dict[str, Any] | None:
        """What the folder's rows depend on; None where there is no run yet.

        Raises:
            FileFormatError: the file is damaged.
        """
        path = self.folder / MANIFEST
        try:
            found = json.loads(whole(path, MOST_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise FileFormatError(f"{path} is damaged: {error}. Give another folder.") from error
        if not isinstance(found, dict):
            raise FileFormatError(f"{path} is damaged: it holds no object. Give another folder.")
        return found

    @contextlib.contextmanager
    def opened(self, job: Job, mix: bool = False) -> Iterator[None]:
        """Make the folder ready for a job, and keep other runs out of it meanwhile.

        Args:
            job: the folder's rows must depend on the same.
            mix: take rows of another network, setting or version as well.

        Raises:
            SettingsError: the folder's rows depend on something else.
            StorageError: it cannot be written, or another run writes there.
        """
        with storing(self.folder):
            (self.folder / ROWS).mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._agree(job, mix)
            with storing(self.folder):
                for left in (self.folder / ROWS).glob(atomic.UNFINISHED):
                    left.unlink()
            yield

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The system gives the lock back however the process ends."""
        lock = filelock.FileLock(self.folder / LOCK)
        with contextlib.suppress(NotImplementedError):  # a network file system without locks
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout as error:
                raise StorageError(
                    f"{self.folder}: another run writes there. Wait for it."
                ) from error
        try:
            yield
        finally:
            lock.release()

    def _agree(self, job: Job, mix: bool) -> None:
        found, wanted = self.manifest(), job.manifest
        if found is not None:
            found.setdefault("verify", False)  # of before there were verdicts
            for name in ("classes", "assumed", "prepared"):  # of before they were written down
                found.setdefault(name, wanted[name])
        differ = [name for name in wanted if found is not None and found.get(name) != wanted[name]]
        if found is None and self.paths:
            raise SettingsError(
                f"{self.folder} holds rows, and no {MANIFEST} that says what they are of. Give "
                "another folder."
            )
        never = [name for name in differ if name in NEVER_MIXED]
        if never:
            raise SettingsError(
                f"{self.folder} holds rows of another {' and '.join(never)}. Give another folder."
            )
        if differ and not mix:
            assert found is not None
            changes = "; ".join(_change(name, found.get(name), wanted[name]) for name in differ)
            raise SettingsError(
                f"{self.folder} holds rows made otherwise: {changes}. Give another folder, or "
                "--mix to go on in this one."
            )
        if found is None or differ:
            earlier = [] if found is None else [*found.pop("earlier", []), found]
            manifest = {**wanted, "earlier": earlier} if earlier else wanted
            with storing(self.folder):
                atomic.write(self.folder / MANIFEST, json.dumps(manifest, indent=1).encode())

    def write(self, shard: int, rows: Sequence[Row]) -> None:
        """Write a shard.

        Raises:
            StorageError: it cannot be written; the shards before it are whole.
        """
        content = to_parquet(table(rows))
        with storing(self.folder):
            atomic.write(self.path(shard), content)

    def every(
        self, columns: Sequence[str] | None = None, wanted: Container[int] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The rows in the order of the input, as Python's values; ``values`` as a float16 array.

        Args:
            columns: only these.
            wanted: only rows of such an ``index``, which must be among the columns.

        Raises:
            FileFormatError: there is no shard, or one is damaged.
        """
        if not self.paths:
            raise FileFormatError(f"{self.folder} holds no rows of torchfbi batch.")
        names = None if columns is None else list(columns)
        for path in self.paths:
            try:
                with pq.ParquetFile(path) as file:
                    _check(file.schema_arrow, path)
                    for part in file.iter_batches(READ_AT_A_TIME, columns=names):
                        yield from _rows(part, wanted)
            except (pa.ArrowException, OSError) as error:
                raise FileFormatError(
                    f"{path} is damaged ({error}). Delete it: the same run makes it again."
                ) from error


def _check(schema: pa.Schema, path: Path) -> None:
    for name, kind in COLUMNS.items():
        if name in LATER and name not in schema.names:
            continue
        if name not in schema.names or schema.field(name).type != kind:
            raise FileFormatError(f"{path} is no shard of torchfbi batch: it lacks {name} {kind}.")


def _rows(part: Any, wanted: Container[int] | None) -> Iterator[dict[str, Any]]:
    names = part.schema.names
    for i in range(part.num_rows):
        if wanted is not None and part["index"][i].as_py() not in wanted:
            continue
        # As Python's numbers the values would take ten times the memory.
        row = {name: part[name][i].as_py() for name in names if name != "values"}
        if "values" in names:
            cell = part["values"][i]
            row["values"] = cell.values.to_numpy(zero_copy_only=False) if cell.is_valid else None
        yield row


@contextlib.contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Put what the file system says into words."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror or error}. What is there is whole: once "
            "that is mended, the same command goes on."
        ) from error


def _change(name: str, before: Any, now: Any) -> str:
    """What differs, as short as it can be said."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        told = [f"{key} was {before.get(key)}, is {now.get(key)}" for key in keys[:3]]
        return ", ".join(told) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    if name in ("weights", "labels"):
        return f"other {name}"
    if name == "graph":
        return "the network's code computes something else"
    if name == "prepared":
        return "the preprocessing makes something else of a picture"
    if name == "files":
        return "the images' files have other sizes or times"
    return f"{name} was {before}, is {now}"
