"""Both engines give the same table: on a real Ray cluster of two nodes in this machine."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batching import pictures
from torchfbi import load
from torchfbi.batch import Progress, cluster, run
from torchfbi.errors import ModelError, StorageError

ray = pytest.importorskip("ray")

# Ray leaves sockets and files open, and warns about its own defaults.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's workers would give way to all else on the machine, as to the rest of the suite.
    eager = {"_system_config": {"worker_niceness": 0}}
    # As few processes as there can be: each imports PyTorch.
    few = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    nodes = Cluster(True, head_node_args={"num_cpus": 1, **few, **eager})
    try:
        nodes.add_node(num_cpus=1, **few)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def descendants(pid: int) -> Iterator[int]:
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            yield child
            yield from descendants(child)


def actors() -> list[int]:
    """The processes of this program's cluster that hold the network."""
    pids = descendants(os.getpid())
    return [pid for pid in pids if b"_Actor" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_the_table_is_the_local_engines(nodes: Any, tmp_path: Path) -> None:
    """Though an actor is killed in the middle, and a node with whatever is on it."""
    pictures(tmp_path / "photos", 22)
    options = {"shard": 6, "batch": 4, "threads": 1}
    run("digits", tmp_path / "photos", tmp_path / "local", workers=0, **options)
    # It goes on where the other engine was stopped, after the second of four shards.
    shutil.copytree(tmp_path / "local", tmp_path / "ray")
    for shard in ("000000", "000002", "000003"):
        (tmp_path / "ray/rows" / f"{shard}.parquet").unlink()
    steps: list[Progress] = []
    killed: list[int] = []

    def progress(step: Progress) -> None:
        steps.append(step)
        if len(steps) == 2:  # after the first batch
            killed.extend(actors()[:1])
            os.kill(killed[0], signal.SIGKILL)
            nodes.remove_node(nodes.list_all_nodes()[-1])

    done = run(
        load("digits"), tmp_path / "photos", tmp_path / "ray",
        engine="ray", address=nodes.address, workers=2, cpus=0.75, progress=progress,
    )  # fmt: skip
    assert (done.images, done.explained) == (22, 16)
    assert [path for path, _ in done.failures] == ["0/002.png"]
    assert steps[0] == (6, 22, 0)
    assert steps[-1] == (22, 22, 1)
    local, remote = (
        pq.read_table(tmp_path / name / "rows").drop_columns("milliseconds")
        for name in ("local", "ray")
    )
    assert remote.equals(local)
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:  # it tries for a minute
        raise ConnectionError("no answer\nfrom there")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(StorageError, match=r"cannot be reached at nowhere:1: no answer$"):
        next(cluster._connected("nowhere:1").gen)


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ModelError, match=r"torchfbi\[ray\]"):
        next(cluster._connected(None).gen)
