"""A user's own pictures, with annotations of every format; none of it is trusted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Outline
from PIL import Image
from torch import Tensor, nn

from torchfbi.errors import FileFormatError, ImageError, SettingsError
from torchfbi.evaluate.benchmark import Suite, folder
from torchfbi.evaluate.benchmark.folder import class_of
from torchfbi.evaluate.benchmark.outlines import box, polygon, run_lengths
from torchfbi.models import Labels, Model
from torchfbi.models.preprocess import Preprocess

LABELS = Labels(["cat", "dog", "custard apple", "crane", "crane"], [["puss"], ["puss"], [], [], []])


class Bright(nn.Module):
    """Five classes; the top one is 0, for dark pictures 4."""

    def forward(self, x: Tensor) -> Tensor:
        light = x.mean((1, 2, 3))[:, None]
        return torch.cat([light, light * 0.5, light * 0, light * 0, -light], 1)


def toy(**options: Any) -> Model:
    settings = {"resize": 8, "crop": 8, "mean": (0.5,) * 3, "std": (0.5,) * 3, "fit": "stretch"}
    return Model(Bright().eval(), Preprocess(**(settings | options)), LABELS, "toy")


def white_box(path: Path, rows: slice, columns: slice, shape: tuple[int, int] = (8, 8)) -> None:
    """A black picture with a white rectangle."""
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[rows, columns] = 255
    Image.fromarray(pixels).save(path)


def coco(**changes: Any) -> dict[str, Any]:
    content = {
        "images": [{"id": 7, "file_name": "some/where/a.png", "width": 8, "height": 8}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [2, 1, 3, 4]}],
        "categories": [{"id": 1, "name": "Cat"}, {"id": 2, "name": "DOG"}],
    }
    return content | changes


def voc(*boxes: tuple[str, Any, Any, Any, Any], size: str = "") -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, x0, y0, x1, y1 in boxes
    )
    return f"<annotation>{size}{objects}</annotation>"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """One picture, a.png: 8 x 8, white in rows 1 to 4 and columns 2 to 4."""
    white_box(tmp_path / "a.png", slice(1, 5), slice(2, 5))
    return tmp_path


def mask_of(suite: Suite, index: int = 0) -> list[list[int]]:
    """Rows and columns of the mask's pixels."""
    mask = suite.scenes[index].mask
    assert mask is not None
    return [sorted(set(where.tolist())) for where in mask.nonzero(as_tuple=True)]


BOX = [[1, 2, 3, 4], [2, 3, 4]]


# --- Outlines by hand ---------------------------------------------------------------------------


def test_a_box_holds_the_pixels_whose_centres_it_holds() -> None:
    mask = box(1.6, 0.4, 3.6, 2.5, (4, 5))
    assert mask.astype(int).tolist() == [[0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0] * 5, [0] * 5]
    assert box(-3, -1, 1, 9, (2, 2)).tolist() == [[True, False], [True, False]]


def test_polygons_by_hand() -> None:
    square = polygon([1, 1, 4, 1, 4, 3, 1, 3], (4, 5))
    assert square.astype(int).tolist() == [[0] * 5, [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0] * 5]
    triangle = polygon([0, 0, 4, 0, 0, 4], (4, 4))  # centres on the oblique edge are out
    assert triangle.astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0] * 4]
    bow = polygon([0, 0, 4, 4, 4, 0, 0, 4], (4, 4))  # a centre on a left edge is in
    assert bow.astype(int).tolist() == [[0, 0, 0, 1], [1, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 1]]
    assert polygon([-9, -9, 99, -9, 99, 99, -9, 99], (3, 3)).all()


def test_polygons_are_those_of_matplotlib() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:30, :40] + 0.5
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = rng.uniform(4, 18, 9)
        points = np.stack([20 + radius * np.cos(angles), 15 + radius * np.sin(angles)], 1)
        expected = Outline(points).contains_points(np.stack([x.ravel(), y.ravel()], 1))
        found = polygon(points.ravel().tolist(), (30, 40))
        assert np.array_equal(found.ravel(), expected)
        assert 30 < found.sum() < 900


def test_run_lengths_go_down_the_columns() -> None:
    mask = run_lengths([1, 2, 2, 1], [2, 3], (2, 3))
    assert mask.astype(int).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert run_lengths([0, 6], [2, 3], (2, 3)).all()


HOSTILE_OUTLINES: list[tuple[Any, str]] = [
    ({"bbox": [float("nan"), 1, 2, 3]}, "nan is no coordinate"),
    ({"bbox": [0, 0, float("inf"), 3]}, "inf is no coordinate"),
    ({"bbox": [1e300, 0, 1, 1]}, "no coordinate"),
    ({"bbox": [20, 20, 5, 5]}, "covers no pixel"),
    ({"bbox": [3, 3, 0, 4]}, "covers no pixel"),
    ({"bbox": [3, 3, -2, 4]}, "covers no pixel"),
    ({"bbox": [1, 2, 3]}, "3 numbers"),
    ({"bbox": ["1", "2", "3", "4"]}, "'1' is no coordinate"),
    ({"bbox": "1234"}, "no list"),
    ({"bbox": None}, "None is no list"),
    ({"bbox": [True, 0, 4, 4]}, "True is no coordinate"),
    ({}, "no list"),
    ({"segmentation": [[1, 2, 3, 4]]}, "4 numbers"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "7 numbers"),
    ({"segmentation": [5]}, "5 is no list"),
    ({"segmentation": [[50, 50, 60, 50, 60, 60]]}, "covers no pixel"),
    ({"segmentation": {"counts": [64], "size": [8, 8]}}, "covers no pixel"),
    ({"segmentation": {"counts": [1, 2], "size": [8, 8]}}, "do not add up"),
    ({"segmentation": {"counts": [-1, 65], "size": [8, 8]}}, "do not add up"),
    ({"segmentation": {"counts": [1, 1e999], "size": [8, 8]}}, "do not add up"),
    ({"segmentation": {"counts": [0, 10**15], "size": [8, 8]}}, "do not add up"),
    ({"segmentation": {"counts": [0, 64], "size": [4, 16]}}, r"\[4, 16\] pixels"),
    ({"segmentation": {"counts": "PPYo0", "size": [8, 8]}}, "compressed"),
    ({"segmentation": {}}, "pixels"),
]


@pytest.mark.parametrize(("outline", "message"), HOSTILE_OUTLINES)
def test_what_is_no_outline_is_listed(outline: Any, message: str, pictures: Path) -> None:
    white_box(pictures / "b.png", slice(0, 2), slice(0, 2))
    annotation = {"image_id": 7, "category_id": 1} | outline
    (pictures / "annotations.json").write_text(json.dumps(coco(annotations=[annotation])))
    suite = folder(pictures, toy())
    assert [scene.name for scene in suite.scenes] == ["b.png"]
    (refused,) = suite.refused
    assert refused.startswith("a.png: ")
    assert re.search(message, refused)


# --- COCO ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outline",
    [
        {"bbox": [2, 1, 3, 4]},
        {"bbox": [2.0, 1.4, 2.6, 3.2], "segmentation": []},
        {"bbox": None, "segmentation": [[2, 1, 5, 1, 5, 5, 2, 5]]},
        {"segmentation": [[2, 1, 5, 1, 5, 3, 2, 3], [2, 3, 5, 3, 5, 5, 2, 5]]},
        {"segmentation": {"counts": [17, 4, 4, 4, 4, 4, 27], "size": [8, 8]}, "iscrowd": 1},
    ],
    ids=["box", "fractional box", "polygon", "two polygons", "run lengths"],
)
def test_coco(outline: Any, pictures: Path) -> None:
    annotation = {"image_id": 7, "category_id": 2} | outline
    (pictures / "annotations.json").write_text(json.dumps(coco(annotations=[annotation])))
    suite = folder(pictures, toy())
    assert suite.refused == ()
    (scene,) = suite.scenes
    assert (scene.name, scene.target) == ("a.png: dog", 1)
    assert mask_of(suite) == BOX
    assert scene.mask is not None
    assert torch.equal(scene.mask, scene.x[0] > 0)  # as white as the picture is
    assert scene.picture[1, 2].tolist() == [255] * 3


def test_a_scene_for_each_category_that_is_a_class(pictures: Path) -> None:
    boxes = [(2, [2, 1, 1, 4]), (2, [4, 1, 1, 4]), (1, [3, 3, 1, 1]), (3, [0, 0, 8, 8])]
    content = coco(
        annotations=[{"image_id": 7, "category_id": c, "bbox": b} for c, b in boxes],
        categories=[{"id": i, "name": n} for i, n in ((1, "cat"), (2, "1"), (3, "apple"))],
    )
    (pictures / "mine.json").write_text(json.dumps(content))
    suite = folder(pictures, toy(), annotations=pictures / "mine.json")
    assert [(scene.name, scene.target) for scene in suite.scenes] == [
        ("a.png: dog", 1),
        ("a.png: cat", 0),
    ]
    assert mask_of(suite, 0) == [[1, 2, 3, 4], [2, 4]]
    assert mask_of(suite, 1) == [[3], [3]]


def test_categories_that_are_no_class_ask_for_the_top_class(pictures: Path) -> None:
    boxes = [(3, [2, 1, 3, 2]), (4, [2, 3, 3, 2]), ([1], [4, 4, 1, 1])]
    content = coco(
        annotations=[{"image_id": 7, "category_id": c, "bbox": b} for c, b in boxes],
        categories=[{"id": 3, "name": "apple"}, {"id": 4, "name": "pear"}],
    )
    (pictures / "annotations.json").write_text(json.dumps(content))
    suite = folder(pictures, toy())
    assert suite.scenes[0].target == 4  # the picture is rather dark
    assert mask_of(suite) == BOX


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("", "no JSON"),
        pytest.param("[" * 100_000, "no JSON", id="deep"),
        ("[]", "no list 'images'"),
        ("3", "no list 'images'"),
        (coco(images=None), "no list 'images'"),
        (coco(images=[5]), r"images\[0\] has no proper 'id'"),
        (coco(images=[{"id": 1, "file_name": 5}]), "no proper 'file_name'"),
        (coco(images=[{"id": [], "file_name": "a.png"}]), "no proper 'id'"),
        (coco(images=[{"id": i, "file_name": f"{i}/a.png"} for i in (1, 2)]), "two images"),
        (coco(annotations={}), "no list 'annotations'"),
        (coco(annotations=[{"image_id": {}}]), "no proper 'image_id'"),
        (coco(categories=[{"id": 1}]), "no proper 'name'"),
    ],
)
def test_what_is_no_coco_file(content: Any, message: str, pictures: Path) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (pictures / "annotations.json").write_text(text)
    with pytest.raises(FileFormatError, match=message):
        folder(pictures, toy())


def test_paths_in_a_coco_file_are_not_opened(pictures: Path) -> None:
    outside = pictures.parent / "outside.png"
    white_box(outside, slice(0, 8), slice(0, 8))
    images = [{"id": 1, "file_name": str(outside)}, {"id": 2, "file_name": "..\\up\\a.png"}]
    annotations = [{"image_id": i, "category_id": i, "bbox": [2, 1, 3, 4]} for i in (1, 2)]
    content = coco(images=images, annotations=annotations)
    (pictures / "annotations.json").write_text(json.dumps(content))
    assert [scene.name for scene in folder(pictures, toy()).scenes] == ["a.png: dog"]


# --- Pascal VOC ---------------------------------------------------------------------------------


def test_voc_counts_pixels_from_one_and_both_corners(pictures: Path) -> None:
    size = "<size><width>8</width><height>8</height><depth>3</depth></size>"
    (pictures / "annotations").mkdir()
    path = pictures / "annotations" / "a.xml"
    path.write_text(voc(("Dog", 3, 2, 5, 5), size=size))
    suite = folder(pictures, toy())
    assert (suite.scenes[0].target, mask_of(suite)) == (1, BOX)
    path.rename(pictures / "a.xml")  # beside the picture
    assert mask_of(folder(pictures, toy(), annotations=pictures)) == BOX
    path.parent.rmdir()
    assert mask_of(folder(pictures, toy())) == BOX


BOMB = """<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB.encode(), "document type"),
        (BOMB.encode("utf-16"), "document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        (b"<annotation>&b;</annotation>", "no XML"),
        (b"", "no XML"),
        (b"<html/>", "no Pascal VOC"),
        pytest.param(b"<a>" * 100_000 + b"</a>" * 100_000, "no Pascal VOC", id="deep"),
        (b"<annotation><object>", "no XML"),
        (b"<annotation><object/></annotation>", "'' is no coordinate"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "no XML"),
        (voc(("dog", "x", 1, 2, 3)).encode(), "'x' is no coordinate"),
        (voc(("dog", "nan", 1, 2, 3)).encode(), "'nan' is no coordinate"),
        (voc(("dog", 1, 1, "inf", 3)).encode(), "'inf' is no coordinate"),
        (voc(("dog", 5, 5, 3, 3)).encode(), "covers no pixel"),
        (voc(("dog", 20, 20, 30, 30)).encode(), "covers no pixel"),
        (
            voc(size="<size><width>9</width><height>8</height></size>").encode(),
            "annotated as 9.0 x 8.0 pixels, but has 8 x 8",
        ),
    ],
)
def test_what_is_no_voc_file_is_listed(content: bytes, message: str, pictures: Path) -> None:
    white_box(pictures / "b.png", slice(0, 2), slice(0, 2))
    (pictures / "a.xml").write_bytes(content)
    suite = folder(pictures, toy())
    assert [scene.name for scene in suite.scenes] == ["b.png"]
    assert len(suite.refused) == 1
    assert re.search(message, suite.refused[0])


# --- Masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 255])
def test_masks(value: int, pictures: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[1:5, 2:5] = value
    (pictures / "masks").mkdir()
    Image.fromarray(pixels).save(pictures / "masks" / "a.png")
    suite = folder(pictures, toy())
    assert suite.scenes[0].target == 4  # a mask names no class
    assert mask_of(suite) == BOX
    assert "1 of 1 with" in suite.description


def test_masks_that_cannot_be_are_listed(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("black", "white", "small", "damaged", "fine"):
        white_box(tmp_path / f"{name}.jpg", slice(0, 4), slice(0, 4))
    white_box(tmp_path / "masks" / "black.png", slice(0), slice(0))
    white_box(tmp_path / "masks" / "white.png", slice(0, 8), slice(0, 8))
    white_box(tmp_path / "masks" / "small.png", slice(0, 2), slice(0, 2), (4, 4))
    (tmp_path / "masks" / "damaged.png").write_bytes(b"PNG")
    suite = folder(tmp_path, toy())
    assert [(scene.name, scene.mask) for scene in suite.scenes] == [("fine.jpg", None)]
    messages = "covers no pixel", "cannot be|no picture", "annotated as 4 x 4", "nowhere black"
    for refused, message in zip(suite.refused, messages, strict=True):
        assert re.search(message, refused)


# --- Geometry -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"fit": "stretch", "crop": (12, 16)},
        {"fit": "crop", "resize": 20, "crop": 16},
        {"fit": "crop", "resize": 20, "crop": (12, 18), "interpolation": "bicubic"},
    ],
)
@pytest.mark.parametrize("shape", [(40, 61), (90, 33), (10, 10)])
def test_masks_are_resized_and_cropped_as_the_photo_is(
    options: dict[str, Any], shape: tuple[int, int], tmp_path: Path
) -> None:
    height, width = shape
    rows, columns = slice(height // 3, height * 2 // 3), slice(width // 4, width * 2 // 3)
    white_box(tmp_path / "a.png", rows, columns, shape)
    box = ("cat", columns.start + 1, rows.start + 1, columns.stop, rows.stop)
    (tmp_path / "a.xml").write_text(voc(box))
    (scene,) = folder(tmp_path, toy(**options)).scenes
    assert scene.mask is not None
    assert 0 < scene.mask.sum() < scene.mask.numel()
    assert torch.equal(scene.mask, scene.x[1] > 0)


def test_annotations_are_those_of_the_upright_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    lying = Image.new("RGB", (8, 4))
    lying.save(tmp_path / "a.png", exif=exif)
    for side, refused in (((4, 8), 0), ((8, 4), 1)):
        image = {"id": 7, "file_name": "a.png", "width": side[0], "height": side[1]}
        (tmp_path / "annotations.json").write_text(json.dumps(coco(images=[image])))
        if refused:
            with pytest.raises(ImageError, match="upright"):
                folder(tmp_path, toy())
        else:
            assert len(folder(tmp_path, toy())) == 1


def test_an_object_that_is_cropped_off_is_listed(tmp_path: Path) -> None:
    white_box(tmp_path / "a.png", slice(0, 8), slice(0, 2), (8, 24))
    (tmp_path / "a.xml").write_text(voc(("cat", 1, 1, 2, 8), ("dog", 12, 1, 13, 8)))
    suite = folder(tmp_path, toy(fit="crop"))
    assert [scene.name for scene in suite.scenes] == ["a.png: dog"]
    assert suite.refused == ("a.png: cat: it is too small, or outside of what the network sees.",)


# --- Folders ------------------------------------------------------------------------------------


def test_pictures_without_annotations_and_what_is_no_picture(tmp_path: Path) -> None:
    white_box(tmp_path / "c.PNG", slice(0, 8), slice(0, 8))
    white_box(tmp_path / "a.bmp", slice(0, 1), slice(0, 1))
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "d.webp").write_bytes(b"RIFFxxxxWEBP")
    (tmp_path / ".e.png").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_text("no picture")
    suite = folder(tmp_path, toy())
    assert [(scene.name, scene.target) for scene in suite.scenes] == [("a.bmp", 4), ("c.PNG", 0)]
    assert [text[:5] for text in suite.refused] == ["b.jpg", "d.web"]
    assert suite.name == tmp_path.name
    assert [batch.indices for batch in suite.batches()] == [(0, 1)]
    assert len(folder(tmp_path, toy(), count=1)) == 1


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no picture that can be used"):
        folder(tmp_path, toy())
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"first of 1 is refused: a.png"):
        folder(tmp_path, toy())
    with pytest.raises(ImageError, match="is no folder"):
        folder(tmp_path / "none", toy())
    with pytest.raises(SettingsError, match="no such file"):
        folder(tmp_path, toy(), annotations=tmp_path / "none.json")
    with pytest.raises(SettingsError, match="count=0"):
        folder(tmp_path, toy(), count=0)


@pytest.mark.parametrize(
    ("category", "number"),
    [
        ("CAT", 0),
        ("Custard-Apple", 2),
        (" 3 ", 3),
        ("apple", None),
        ("crane", None),
        ("puss", None),
        ("5", None),
        ("9" * 5000, None),
        ("", None),
    ],
)
def test_categories_name_classes_wholly_or_not_at_all(category: str, number: int | None) -> None:
    assert class_of(LABELS, category) == number
