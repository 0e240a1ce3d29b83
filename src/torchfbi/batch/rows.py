"""The rows: one an image, in a schema that data tools read without us."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from torchfbi.batch.decode import Decoded
from torchfbi.batch.job import Job
from torchfbi.engine.support import support
from torchfbi.method.evidence import support_of_values
from torchfbi.models.images import Array
from torchfbi.verification import Verdict

Row = dict[str, Any]

_SIDES = ("left", "top", "right", "bottom")
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # Hugging Face's own


def _box(kind: pa.DataType) -> pa.DataType:
    return pa.struct([(side, kind) for side in _SIDES])


COLUMNS: dict[str, pa.DataType] = {
    "index": pa.int64(),
    "path": pa.string(),
    "sha256": pa.string(),
    "target": pa.int32(),
    "label": pa.string(),
    "probability": pa.float32(),
    "image": _IMAGE,
    "support": _IMAGE,
    "fraction": pa.float32(),
    "box": _box(pa.int32()),
    "values": pa.list_(pa.float16()),
    "scale": pa.float32(),
    "logits": pa.list_(pa.float32()),
    "region": _box(pa.float32()),
    "milliseconds": pa.float32(),
    "error": pa.string(),
    "settings": pa.string(),
    "versions": pa.struct([(name, pa.string()) for name in ("torchfbi", "torch", "numpy")]),
    "verdict": pa.string(),
    "sufficient": _IMAGE,
}
"""Name and type of every column; docs/batch.md says what they hold."""

LATER = ("verdict", "sufficient")
"""Columns that the rows of earlier versions lack."""


def _feature(kind: pa.DataType) -> Any:
    """The type as Hugging Face's ``datasets`` writes it down."""
    if kind == _IMAGE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {kind[i].name: _feature(kind[i].type) for i in range(len(kind))}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {"float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


_FEATURES = {"info": {"features": {name: _feature(kind) for name, kind in COLUMNS.items()}}}
SCHEMA = pa.schema(list(COLUMNS.items()), {"huggingface": json.dumps(_FEATURES)})


def failed(job: Job, decoded: Decoded, error: str) -> Row:
    """The row of an image that has no explanation."""
    return {
        "index": decoded.number,
        "path": decoded.path,
        "sha256": decoded.sha256,
        "image": _picture(decoded.image),
        "region": None if decoded.region is None else decoded.region._asdict(),
        "error": error,
        "settings": job.settings_hash,
        "versions": job.versions,
    }


def explained(
    job: Job,
    decoded: Decoded,
    values: Array,
    logits: Array,
    target: int,
    probability: float,
    milliseconds: float,
    verdict: Verdict | None = None,
) -> Row:
    """The row of an explanation.

    Args:
        job: what it is a part of.
        decoded: the image.
        values: float32 (C, H, W).
        logits: float32 (classes,).
        target: the probed class.
        probability: of that class.
        milliseconds: what it took.
        verdict: whether it holds, where that was tested.
    """
    carries = support_of_values(torch.from_numpy(values)[None], job.settings, support)[0].numpy()
    scale = np.float32(np.abs(values).max())
    relative = values / scale if scale > 0 else values
    return {
        **failed(job, decoded, ""),
        "target": target,
        "label": job.model.labels[target],
        "probability": probability,
        "support": _picture(_png(carries)),
        "fraction": carries.mean(),
        "box": box(carries),
        "values": _half(relative).ravel(),
        "scale": scale,
        "logits": logits,
        "milliseconds": milliseconds,
        "error": None,
        "verdict": None if verdict is None else json.dumps(verdict.to_dict()),
        "sufficient": _sufficient(verdict),
    }


def _sufficient(verdict: Verdict | None) -> dict[str, Any] | None:
    """The part of the image that suffices, as a picture."""
    if verdict is None or verdict.sufficient is None:
        return None
    return _picture(_png(verdict.sufficient.mask.numpy()))


def _half(values: Array) -> Array:
    """The nearest float16. NumPy's own conversion takes a hundred times as long where numbers are
    tiny, as most of an explanation's are: 10 ms an image."""
    return torch.from_numpy(values).half().numpy()


def box(support: Array) -> dict[str, int] | None:
    """The smallest box around the support (H, W), in its pixels; right and bottom lie outside.
    None where it is empty."""
    if not support.any():
        return None
    rows, columns = np.flatnonzero(support.any(1)), np.flatnonzero(support.any(0))
    sides = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return dict(zip(_SIDES, map(int, sides), strict=True))


def table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table, in the order of the input."""
    ordered = sorted(rows, key=lambda row: row["index"])
    columns = [pa.array([row.get(name) for row in ordered], kind) for name, kind in COLUMNS.items()]
    return pa.table(columns, schema=SCHEMA)


def to_parquet(rows: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    # Dictionaries and bounds of a column of arrays cost more time than they save anyone.
    names = ["label", "settings", "versions.torchfbi", "versions.torch", "versions.numpy"]
    numbers = "values.list.element"
    bounds = ["index", "path", "target", "label", "probability", "fraction"]
    pq.write_table(
        rows,
        sink,
        compression={numbers: "zstd"},  # pictures are compressed already
        compression_level={numbers: 1},
        use_dictionary=names,
        write_statistics=bounds,
    )
    return sink.getvalue().to_pybytes()


def _picture(content: bytes | None) -> dict[str, Any] | None:
    return None if content is None else {"bytes": content, "path": None}


def _png(support: Array) -> bytes:
    """Black and white, a bit a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(support).save(buffer, "PNG")
    return buffer.getvalue()
