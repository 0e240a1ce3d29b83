"""What the rows say, against explanations made one by one, and through other people's readers."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from batching import pictures, tiny
from torchfbi import explain
from torchfbi.batch import run
from torchfbi.batch.rows import box
from torchfbi.batch.run import Done

COUNT = 7


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    pictures(folder / "photos", COUNT)
    run(tiny(), folder / "photos", folder / "out", shard=3, batch=2, workers=0)
    return folder / "out"


def test_every_column_equals_an_explanation_of_that_image(out: Path) -> None:
    model, rows = tiny(), pq.read_table(out / "rows").to_pylist()
    assert [row["index"] for row in rows] == list(range(COUNT))
    for row in rows:
        path = out.parent / "photos" / row["path"]
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        if row["path"] == "0/002.png":  # the damaged one
            assert "damaged" in row["error"]
            assert row["target"] is row["support"] is row["values"] is row["probability"] is None
            continue
        alone = explain(model, path)
        assert row["error"] is None
        assert row["target"] == int(alone.target[0])
        assert row["label"] == alone.label(row["target"])
        assert row["probability"] == pytest.approx(alone.probabilities[0, row["target"]].item())
        np.testing.assert_allclose(row["logits"], alone.logits[0], rtol=1e-5, atol=1e-6)
        values = np.array(row["values"]).reshape(3, 16, 16) * row["scale"]
        np.testing.assert_allclose(values, alone.values[0], atol=row["scale"] * 2**-11)
        support = np.asarray(Image.open(io.BytesIO(row["support"]["bytes"])))
        assert support.dtype == bool
        np.testing.assert_array_equal(support, alone.support[0])
        assert row["fraction"] == pytest.approx(alone.density[0].item())
        assert row["region"] == pytest.approx(alone.regions[0]._asdict())
        seen = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])), dtype=float)
        shown = model.preprocess.denormalise(model.preprocess(alone.photos[0])[0])
        assert np.abs(seen - shown).mean() < 12  # a JPEG
        assert row["milliseconds"] > 0


def test_settings_and_versions_are_those_of_the_manifest(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    rows = pq.read_table(out / "rows", columns=["settings", "versions"]).to_pylist()
    assert all(row["versions"] == manifest["versions"] for row in rows)
    assert len({row["settings"] for row in rows}) == 1


def test_the_box_of_a_support() -> None:
    support = np.zeros((4, 6), bool)
    assert box(support) is None
    support[1, 2] = support[2, 4] = True
    assert box(support) == {"left": 2, "top": 1, "right": 5, "bottom": 3}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets", "ignore::FutureWarning")
def test_other_tools_read_the_rows_directly(out: Path, tmp_path: Path) -> None:
    datasets, duckdb = pytest.importorskip("datasets"), pytest.importorskip("duckdb")
    polars, pandas = pytest.importorskip("polars"), pytest.importorskip("pandas")
    expected = pq.read_table(out / "rows").to_pylist()
    scales = [row["scale"] for row in expected]
    first, bad = expected[0], next(row for row in expected if row["error"])

    found = datasets.load_dataset(str(out / "rows"), split="train", cache_dir=str(tmp_path))
    assert isinstance(found.features["support"], datasets.Image)
    assert found[0]["support"].size == (16, 16)
    assert found[0]["image"].mode == "RGB"
    assert found[bad["index"]]["support"] is None
    assert found[0]["values"] == first["values"]
    assert list(found["scale"]) == scales

    frame = pandas.read_parquet(out / "rows")
    assert frame["values"][0].dtype == np.float16
    assert frame["values"][0].tolist() == first["values"]
    assert frame["support"][0]["bytes"] == first["support"]["bytes"]

    lazy = polars.read_parquet(out / "rows" / "*.parquet")
    assert lazy["scale"].to_list() == scales
    assert lazy["box"].struct.field("left")[0] == first["box"]["left"]
    assert lazy["values"].to_list() == [row["values"] for row in expected]

    sql = f"select box.left, len(values), values[5], error from '{out}/rows/*.parquet'"
    rows = duckdb.sql(sql).fetchall()
    assert rows[0] == (first["box"]["left"], 768, first["values"][4], None)
    assert rows[bad["index"]][1:] == (None, None, bad["error"])


def test_a_batch_is_cut_from_the_input_and_not_from_what_is_good(tmp_path: Path) -> None:
    # Row by row the same whatever the shards: with shards of a whole number of batches the
    # batches are the same, and so are the last bits.
    pictures(tmp_path / "photos", COUNT)
    tables = []
    for shard in (2, 4):
        out = tmp_path / str(shard)
        run(tiny(), tmp_path / "photos", out, shard=shard, batch=2, workers=0)
        tables.append(pq.read_table(out / "rows").drop_columns("milliseconds"))
    assert tables[0].equals(tables[1])


def test_targets(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 3)
    done = run(tiny(), tmp_path / "photos", tmp_path / "a", "kind 3", batch=1, workers=0)
    assert (done.images, done.explained, len(done.failures)) == (3, 3, 1)
    assert set(pq.read_table(tmp_path / "a/rows")["label"].to_pylist()) == {"kind 3", None}
    run(tiny(), tmp_path / "photos", tmp_path / "b", "top2", batch=3, workers=0)
    for row in pq.read_table(tmp_path / "b/rows").to_pylist():
        if row["error"] is None:
            assert row["target"] == int(torch.tensor(row["logits"]).topk(2).indices[1])


def test_done_is_what_the_folder_holds(out: Path) -> None:
    again = run(tiny(), out.parent / "photos", out, workers=0)
    assert isinstance(again, Done)
    assert (again.images, again.explained) == (COUNT, 0)
    assert [path for path, _ in again.failures] == ["0/002.png"]
