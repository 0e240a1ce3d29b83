"""Random input: whatever comes in, it is answered, or refused by one of our own errors.

A fixed budget here, always the same; ``make fuzz`` takes two hundred times as many, other ones each
time. ``FUZZ=3 pytest tests/test_fuzz.py`` takes three times as many.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes
from torch import nn

from hostile import archives, networks, pictures, programs, weights
from torchfbi import ForwardBackward, Labels, Photo, Settings, TorchFBIError, load
from torchfbi.cli.main import main
from torchfbi.cli.report import Names
from torchfbi.errors import (
    FileFormatError,
    ImageError,
    ModelError,
    SettingsError,
)
from torchfbi.evaluate.benchmark import formats

TIMES = int(os.environ.get("FUZZ", "1"))
ONCE = TIMES == 1


def budget(examples: int) -> settings:
    return settings(max_examples=examples * TIMES, derandomize=ONCE, print_blob=not ONCE)


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """One of the files with some bytes overwritten, left out, doubled or put in, or cut short."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        stop = start + draw(st.sampled_from([1, 1, 2, 4, 8, 100]))
        kind = draw(
            st.sampled_from(["overwrite", "overwrite", "flip", "insert", "leave", "double", "cut"])
        )
        if kind == "overwrite":
            data[start:stop] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "flip" and data:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "insert":
            data[start:start] = draw(st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\x7f", b"../"]))
        elif kind == "double":
            data[start:start] = data[start:stop]
        elif kind == "leave":
            del data[start:stop]
        elif kind == "cut":
            del data[max(1, start) :]
    return bytes(data)


NUMBERS = st.one_of(
    st.integers(-3, 10),
    st.integers(),
    st.floats(),
    st.sampled_from([2**31, 2**63, -(2**63), 10**400, 1e-320]),
)
ANYTHING: Any = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def edited(draw: st.DrawFn, plain: Any) -> Any:
    """JSON values with one or two of them replaced by anything, or left out."""
    plain = json.loads(json.dumps(plain))
    for _ in range(draw(st.integers(1, 2))):
        inside: list[tuple[Any, Any]] = []
        waiting = [plain]
        while waiting:
            value = waiting.pop()
            keys = list(value) if isinstance(value, dict) else range(len(value))
            inside += [(value, key) for key in keys]
            waiting += [value[key] for key in keys if isinstance(value[key], dict | list)]
        if not inside:
            break
        value, key = inside[draw(st.integers(0, len(inside) - 1))]
        if draw(st.booleans()):
            value[key] = draw(ANYTHING)
        else:
            del value[key]
    return plain


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def at(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


FORMATS = (
    "PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM", "TGA", "ICO", "PCX", "SGI",
    "DDS", "MPO", "AVIF",
)  # fmt: skip
PICTURES = [pictures.encoded(format) for format in FORMATS]


@budget(150)
@given(damaged(PICTURES))
def test_pictures(data: bytes) -> None:
    with contextlib.suppress(ImageError):
        assert Photo.read(data).pixels.dtype == np.uint8


@budget(50)
@given(st.binary(max_size=200))
def test_bytes_that_are_nothing(data: bytes) -> None:
    with pytest.raises(ImageError):
        Photo.read(data)


SETTINGS = Settings.contrast().to_dict()


@budget(80)
@given(edited(SETTINGS) | st.dictionaries(st.sampled_from(sorted(SETTINGS)), ANYTHING) | ANYTHING)
def test_settings(plain: Any) -> None:
    with contextlib.suppress(SettingsError):
        found = Settings.from_dict(plain)
        assert Settings.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


SHARES = st.sampled_from([0.0, 5e-324, 1e-30, 0.5, 1 - 2**-53, 1.0]) | st.floats(0, 1)
POSITIVE = SHARES | st.floats(0, 1e308)
LEGAL = {
    "seed": st.sampled_from(["paper", "one-hot", "contrast"]),
    "gamma": POSITIVE,
    "tau": st.none() | POSITIVE,
    "k": SHARES,
    "gates": st.sampled_from(["rectify", "held", "derivative", "guided"]),
    "pooling": st.sampled_from(["replicate", "proportional", "winner"]),
    "subtract_bias": st.booleans(),
    "values": st.sampled_from(["signal", "evidence"]),
}


def test_every_setting_is_drawn() -> None:
    assert LEGAL.keys() | {"preset"} == Settings().to_dict().keys()


@budget(60)
@given(
    preset=st.sampled_from(["paper", "contrast", "plain"]),
    changes=st.fixed_dictionaries({}, optional=LEGAL),
    scale=st.sampled_from([0.0, 1e-42, 1e-20, 1.0, 255.0, 1e10, 1e30]),
)
def test_any_legal_setting_walks(
    preset: str, changes: dict[str, Any], scale: float, network: nn.Module
) -> None:
    with contextlib.suppress(SettingsError):
        chosen = Settings.from_preset(preset, **changes)
        x = scale * torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
        with contextlib.suppress(TorchFBIError):
            values, logits = ForwardBackward(network, x, chosen)(x)
            assert torch.isfinite(values).all()
            assert torch.isfinite(logits).all()


@budget(60)
@given(data=st.data())
def test_saved_explanations(data: st.DataObject, folder: Path) -> None:
    honest = archives.honest(folder)
    manifest = json.loads(honest.with_suffix(".json").read_text())
    if data.draw(st.booleans()):
        path = at(folder / "b.npz", data.draw(damaged([honest.read_bytes()])))
    else:
        edit = data.draw(edited(manifest))
        path = archives.changed(folder, manifest=np.array(json.dumps(edit)))
    with contextlib.suppress(FileFormatError):
        archives.use(path)


def onnx_file() -> Any:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3, 3, 3)).astype("f"), "n": networks.ints(0, -1)}
    return networks.model(
        [
            networks.node("Conv", "x w", "a", strides=[2, 2]),
            networks.node("Clip", "a", "b"),
            networks.node("MaxPool", "b", "c", kernel_shape=[2, 2]),
            networks.node("Reshape", "c n", "y"),
        ],
        weights,
    )


@budget(80)
@given(data=st.data())
def test_onnx_files(data: st.DataObject, folder: Path) -> None:
    proto = onnx_file()
    if data.draw(st.booleans()):
        content = data.draw(damaged([proto.SerializeToString()]))
    else:
        for node in proto.graph.node:
            if data.draw(st.booleans()):
                node.op_type = data.draw(st.sampled_from(sorted(OPERATORS)))
            for attribute in node.attribute:
                attribute.ints[:] = data.draw(st.lists(st.integers(-2, 2**40), max_size=4))
            if node.input and data.draw(st.booleans()):
                node.input[-1] = data.draw(st.sampled_from(["", "x", "a", "c", "n", "w"]))
        for tensor in proto.graph.initializer:
            if data.draw(st.booleans()):
                tensor.dims[:] = data.draw(st.lists(st.integers(-2, 2**40), max_size=4))
        content = proto.SerializeToString()
    with contextlib.suppress(ModelError):
        load(str(at(folder / "a.onnx", content)))


OPERATORS = {schema.name for schema in onnx.defs.get_all_schemas()}


@functools.cache
def saved_states() -> dict[str, list[bytes]]:
    """Of one small layer. Made once: the older format holds addresses in memory, whose number of
    digits changes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = nn.Linear(1, 1).state_dict()
    pickled = []
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
        pickled.append(buffer.getvalue())
    return {"pt": pickled, "safetensors": [safetensors_bytes(state)]}


@budget(60)
@given(data=st.data())
def test_state_dicts(data: st.DataObject, folder: Path) -> None:
    suffix = data.draw(st.sampled_from(["pt", "safetensors"]))
    path = at(folder / f"a.{suffix}", data.draw(damaged(saved_states()[suffix])))
    with contextlib.suppress(ModelError):
        weights.fill(path)


@budget(20)
@given(data=st.data())
def test_exported_programs(data: st.DataObject, folder: Path) -> None:
    names = [n for n in programs.parts() if n.endswith((".json", "weight_0"))]
    name = data.draw(st.sampled_from(names))
    content = programs.parts()[name]
    if name.endswith(".json") and data.draw(st.booleans()):
        changed = json.dumps(data.draw(edited(json.loads(content)))).encode()
    else:
        changed = data.draw(damaged([content]))
    path = programs.written(folder, {name.partition("/")[2]: changed})
    with contextlib.suppress(ModelError):
        load(str(path))


NAMES = [b"cat\ndog\ncup\n", b'["cat", "dog", "cup"]', b'{"0": ["n", "cat"], "1": "dog"}']


@budget(100)
@given(data=st.data())
def test_class_names(data: st.DataObject, folder: Path) -> None:
    content = data.draw(
        damaged(NAMES) | st.binary() | ANYTHING.map(lambda plain: json.dumps(plain).encode())
    )
    path = at(folder / data.draw(st.sampled_from(["a.txt", "a.json"])), content)
    with contextlib.suppress(ModelError):
        assert len(Labels.read(path, 3)) == 3


@budget(100)
@given(text=st.text(), names=st.lists(st.text(), min_size=1, max_size=5))
def test_class_names_are_found_or_not(text: str, names: list[str]) -> None:
    with contextlib.suppress(TorchFBIError):
        assert 0 <= Labels(names).find(text) < len(names)


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
    "categories": [{"id": 7, "name": "cat"}],
    "annotations": [
        {"image_id": 1, "category_id": 7, "bbox": [1, 1, 3, 3]},
        {"image_id": 1, "segmentation": [[0, 0, 8, 0, 8, 8]]},
        {"image_id": 1, "segmentation": {"counts": [10, 54], "size": [8, 8]}},
    ],
}
VOC = b"""<annotation><size><width>8</width><height>8</height></size><object><name>cat</name>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>"""


@budget(80)
@given(data=st.data())
def test_annotations(data: st.DataObject, folder: Path) -> None:
    content = data.draw(edited(COCO).map(lambda plain: json.dumps(plain).encode()) | damaged([VOC]))
    path = at(folder / "a.json", content)
    with contextlib.suppress(FileFormatError):
        formats.coco(path)(Path("a.png"), (8, 8))
    with contextlib.suppress(FileFormatError):
        formats.voc(path, (8, 8))


@budget(60)
@example([("a" * 300, "é" * 300), ("A.png", "b"), ("a.jpg", "B")])
@given(names=st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=4))
def test_results_stay_in_their_folder(names: list[tuple[str, str]]) -> None:
    folder = Path("out")
    given = Names(folder)
    paths = [given.new(image, part) for image, part in names]
    assert all(path.parent == folder for path in paths)
    assert len({path.name.casefold() for path in paths}) == len(paths)
    assert all(len(path.name.encode()) < 200 for path in paths)


FACTORY = """
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""
QUICK = ["explain", "check", "models", "sweep", "flow", "compare", "evaluate", "nonsense", ""]
WORDS = st.sampled_from([
    "a.png", "../../a.png", "mine.py:", "mine.py:make", "make", "/", "", "-", "--", "-rf", "out",
    "--json", "--model", "--weights", "--labels", "--target", "--preset", "--set", "--k", "--tau",
    "-o", "--size", "--crop", "--mean", "--std", "--bgr", "--dark", "-f", "--dpi",
    "--help", "--version", "--methods", "--metrics", "--suites", "--count", "svg", "exe", "0", "1",
    "-1", "0.5", "1e999", "nan", "none", "top2", "top0", "top99999999999", "paper", "k=0", "k=[]",
    "preset=x", "__class__=1",
])  # fmt: skip


@budget(12)
@given(
    command=st.sampled_from(QUICK),
    words=st.lists(WORDS | st.text(max_size=6), max_size=8),
)
def test_command_lines(
    command: str, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    above = tmp_path_factory.mktemp("above")
    folder = above / "here"
    folder.mkdir()
    (folder / "mine.py").write_text(FACTORY)
    (folder / "a.png").write_bytes(pictures.encoded("PNG"))
    # Without these it would load the embedded network, or write where it should.
    options = ["--model", "mine.py:make"] if "--model" not in words else []
    before = Path.cwd()
    os.chdir(folder)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
            pytest.raises(SystemExit) as stop,
        ):
            main([command, *options, *words])
    finally:
        os.chdir(before)
    assert stop.value.code in (0, 1, 2)
    assert "Traceback" not in out.getvalue() + err.getvalue()
    assert (folder / "a.png").read_bytes() == pictures.encoded("PNG")
    assert list(above.iterdir()) == [folder] or "../../a.png" in words
