"""Many architectures, a process each: what one of them spends or breaks is gone after it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from survey.examine import Row, examine
from survey.names import family
from torchfbi.system import children


def run(
    names: Iterable[str],
    record: Path,
    jobs: int = 1,
    timeout: float = 600,
    each: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Examine architectures in their order.

    Args:
        names: of architectures.
        record: a file of JSON lines; what it holds already is not done again.
        jobs: how many processes at a time.
        timeout: for each architecture, in seconds.
        each: called with every new row.

    Returns:
        The rows of all names, examined now or before.
    """
    known = {row.name: row for row in read(record)}

    def row_of(name: str) -> Row:
        if name in known:
            return known[name]
        row = _in_a_process(name, timeout)
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row.to_dict()) + "\n")
        each(row)
        return row

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(row_of, names))


def read(record: Path) -> list[Row]:
    """The rows that a file of JSON lines holds; none if there is no such file."""
    if not record.exists():
        return []
    lines = record.read_text(encoding="utf-8").splitlines()
    return [Row.from_dict(json.loads(line)) for line in lines]


def _in_a_process(name: str, timeout: float) -> Row:
    ours, theirs = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_work, args=(name, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if ours.poll(timeout):
            return ours.recv()
        return Row(name, family(name), refused=f"not finished within {timeout:g} seconds")
    except EOFError:  # it died, most likely for want of memory
        process.join()
        return Row(name, family(name), refused=f"its process ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _work(name: str, answer: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        answer.send(examine(name))
    except Exception as error:  # of the architecture's own code: a row as well
        answer.send(Row(name, family(name), refused=f"{type(error).__name__}: {error}"))


_processes: Any = children.context("survey.warm")
