"""Both engines give the same table: on a real Ray cluster of three nodes in this machine."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batching import pictures
from torchfbi import load
from torchfbi.batch import Step, cluster, run
from torchfbi.errors import ModelError, StorageError

ray = pytest.importorskip("ray")

# Ray leaves sockets and files open, and warns about its own defaults.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def address():
    from ray.cluster_utils import Cluster

    nodes = Cluster(True, head_node_args={"num_cpus": 0.5, "include_dashboard": False})
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=0.5)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_the_table_is_the_local_engines(address: str, tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 22)
    options = {"shard": 6, "batch": 4, "threads": 1}
    run("digits", tmp_path / "photos", tmp_path / "local", workers=0, **options)
    steps: list[Step] = []
    place = {"engine": "ray", "address": address, "workers": 2, "cpus": 0.25}
    done = run(
        load("digits"), tmp_path / "photos", tmp_path / "ray", progress=steps.append,
        **options, **place,
    )  # fmt: skip
    assert (done.images, done.explained) == (22, 22)
    assert [path for path, _ in done.failures] == ["0/002.png"]
    assert steps[0] == (0, 22, 0)
    assert steps[-1] == (22, 22, 1)
    local, remote = (
        pq.read_table(tmp_path / name / "rows").drop_columns("milliseconds")
        for name in ("local", "ray")
    )
    assert remote.equals(local)
    # Either engine goes on where the other one stopped.
    (tmp_path / "local/rows/000001.parquet").unlink()
    again = run("digits", tmp_path / "photos", tmp_path / "local", **place)
    assert again.explained == 6
    assert pq.read_table(tmp_path / "local/rows").drop_columns("milliseconds").equals(remote)
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"Ray cannot be reached at nowhere"):
        next(iter(cluster._connected("nowhere:1").gen))


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ModelError, match=r"torchfbi\[ray\]"):
        next(iter(cluster._connected(None).gen))
