"""The exact geometry of preparing a photo for a network and of going back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from torchfbi.errors import SettingsError
from torchfbi.models.images import Photo
from torchfbi.models.preprocess import Preprocess, Region, on_photo
from torchfbi.models.torchvision import import_torchvision


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


IMAGENET = Preprocess(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (64, (40, 56))])
@pytest.mark.parametrize("shape", [(300, 451), (451, 301), (97, 33), (256, 256), (13, 200)])
def test_it_agrees_with_torchvision(
    shape: tuple[int, int], resize: int, crop: int | tuple[int, int], interpolation: str
) -> None:
    T = import_torchvision().transforms
    preprocess = replace(IMAGENET, resize=resize, crop=crop, interpolation=interpolation)
    reference = T.Compose(
        [
            T.Resize(resize, interpolation=T.InterpolationMode(interpolation)),
            T.CenterCrop(crop),
            T.ToTensor(),
            T.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )
    pixels = noise(*shape)
    x, _ = preprocess(Photo(pixels))
    assert x.dtype == torch.float32
    assert x.shape == (3, *preprocess.size)
    assert x.is_contiguous()
    expected = reference(Image.fromarray(pixels))
    assert torch.allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 200), (200, 3), (20, 500), (500, 20)])
def test_panoramas_agree_with_torchvision_but_for_rounding(shape: tuple[int, int]) -> None:
    T = import_torchvision().transforms
    preprocess = Preprocess(64, 56, (0,) * 3, (1,) * 3)
    pixels = noise(*shape)
    x, _ = preprocess(Photo(pixels))
    resize = T.Compose([T.Resize(64), T.CenterCrop(56), T.ToTensor()])
    assert (x - resize(Image.fromarray(pixels))).abs().max() * 255 < 1.01


def test_the_region_by_hand() -> None:
    ten = Preprocess(10, 10, (0,), (1,), channels="L")
    assert ten.region((100, 300)) == Region(100, 0, 200, 100)
    assert ten.region((300, 100)) == Region(0, 100, 100, 200)
    eight = replace(ten, crop=8)
    assert eight.region((100, 300)) == Region(110, 10, 190, 90)
    assert replace(ten, crop=(2, 4)).region((100, 300)) == Region(130, 40, 170, 60)
    assert replace(ten, fit="stretch").region((100, 300)) == Region(0, 0, 300, 100)


@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (5000, 3), (3, 5000), (1, 1)])
def test_extreme_photos(shape: tuple[int, int], fit: str) -> None:
    preprocess = replace(IMAGENET, fit=fit)
    x, region = preprocess(Photo(np.full((*shape, 3), 200, np.uint8)))
    assert np.array_equal(preprocess.denormalise(x), np.full((224, 224, 3), 200))
    assert on_photo(torch.ones(224, 224), shape, region).max() == pytest.approx(1)
    assert on_photo(np.ones((224, 224), bool), shape, region).any()


def test_stretching_shows_the_whole_photo() -> None:
    preprocess = Preprocess(4, 4, (0,) * 3, (1,) * 3, fit="stretch")
    halves = np.zeros((4, 400, 3), np.uint8)
    halves[:, 200:] = 255
    x, region = preprocess(Photo(halves))
    assert region == (0, 0, 400, 4)
    assert x[0, 0, 0] == 0
    assert x[0, 0, 3] == 1


def test_one_grey_channel() -> None:
    preprocess = Preprocess(1, 1, (0.5,), (0.25,), channels="L")
    x, _ = preprocess(Photo(np.array([[[255, 0, 0]]], np.uint8)))
    # Rec. 601 weighs red by 0.299: 76 of 255.
    assert x.tolist() == [[[pytest.approx((76 / 255 - 0.5) / 0.25)]]]
    assert preprocess.denormalise(x).tolist() == [[[76, 76, 76]]]


def test_caffe_takes_blue_first_from_0_to_255_minus_the_mean() -> None:
    mean = (103.939, 116.779, 123.68)
    caffe = Preprocess(1, 1, [m / 255 for m in mean], [1 / 255] * 3, channels="BGR")
    x, _ = caffe(Photo(np.array([[[200, 100, 0]]], np.uint8)))
    expected = torch.tensor([0 - 103.939, 100 - 116.779, 200 - 123.68])
    torch.testing.assert_close(x.flatten(), expected, rtol=0, atol=2e-5)
    assert caffe.denormalise(x).tolist() == [[[200, 100, 0]]]


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_denormalise_inverts(channels: str) -> None:
    pixels = noise(224, 224)
    preprocess = replace(IMAGENET, resize=224, channels=channels)
    x, _ = preprocess(Photo(pixels))
    assert np.array_equal(preprocess.denormalise(x), pixels)
    assert preprocess.denormalise(x * 100).max() == 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 300}, "at most resize"),
        ({"crop": 0}, "positive"),
        ({"mean": (0.5,)}, "one number a channel"),
        ({"std": (1, 0, 1)}, "every std is above 0"),
        ({"std": (1, -1, 1)}, "every std is above 0"),
        ({"std": (1, 1e-60, 1)}, "every std is above 0"),  # 0 with 32 bits
        ({"std": (1, 1e300, 1)}, "finite"),
        ({"mean": (0, float("nan"), 0)}, "finite"),
        ({"interpolation": "nearest"}, "bilinear or bicubic"),
        ({"channels": "GRB"}, "RGB, BGR or L"),
        ({"fit": "pad"}, "crop or stretch"),
    ],
)
def test_impossible_preprocessing(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(IMAGENET, **changes)


def test_equal_preprocessing_is_equal_and_hashable() -> None:
    other = replace(IMAGENET, mean=list(IMAGENET.mean))
    assert other == IMAGENET
    assert hash(other) == hash(IMAGENET)


# Back onto the photo


@pytest.mark.parametrize("tall", [False, True])
def test_a_single_pixel_lands_where_it_came_from(tall: bool) -> None:
    """100 x 300 onto 10 x 10: a network pixel is a block of 10 x 10, the first column at 100."""
    region = Preprocess(10, 10, (0,), (1,), channels="L").region((100, 300))
    lit = np.zeros((10, 10), bool)
    lit[2, 3] = True
    expected = np.zeros((100, 300), bool)
    expected[20:30, 130:140] = True
    shape = (100, 300)
    if tall:
        lit, expected, shape = lit.T, expected.T, (300, 100)
        region = Region(region.top, region.left, region.bottom, region.right)
    landed = on_photo(torch.from_numpy(lit), shape, region)
    assert landed.dtype == bool
    assert np.array_equal(landed, expected)

    smooth = on_photo(lit.astype(np.float32), shape, region)
    assert smooth.dtype == np.float32
    # Photo pixel 134 has its centre at 134.5, 0.05 network pixels from that of network pixel 3.
    profile = 1 - np.abs((np.arange(300) + 0.5 - 135) / 10)
    column = np.clip(profile, 0, None)
    row = np.clip(1 - np.abs((np.arange(100) + 0.5 - 25) / 10), 0, None)
    by_hand = np.outer(row, column)
    assert np.allclose(smooth, by_hand.T if tall else by_hand, atol=1e-6)
    assert smooth.max() == pytest.approx(0.95**2)


def test_the_round_trip_through_a_real_resize() -> None:
    """A white square in the photo lights the network pixels that lead back to it."""
    pixels = np.zeros((427, 640, 3), np.uint8)
    pixels[100:140, 300:350] = 255
    x, region = IMAGENET(Photo(pixels))
    landed = on_photo(x[0] > 0, (427, 640), region)
    rows, columns = np.flatnonzero(landed.any(1)), np.flatnonzero(landed.any(0))
    assert np.abs(rows[[0, -1]] - [100, 139]).max() <= 1
    assert np.abs(columns[[0, -1]] - [300, 349]).max() <= 1


def test_outside_the_region_is_zero_and_inside_is_whole() -> None:
    region = Region(2.5, 0, 5.0, 2)
    inside = np.array([[False, False, True, True, True, False]] * 2)  # pixel 2 lies half inside
    assert np.array_equal(on_photo(np.ones((3, 3), bool), (2, 6), region), inside)
    assert np.allclose(on_photo(np.ones((3, 3)), (2, 6), region), inside)


def test_a_coarser_photo_is_averaged() -> None:
    """Two photo pixels over four: the first centre is at 1, the triangle 2 wide, the distances
    .5, .5, 1.5, 2.5 and the weights 3, 3, 1, 0 of 7."""
    values = np.array([[1.0, 10.0, 100.0, 1000.0]])
    expected = [[(3 * 1 + 3 * 10 + 100) / 7, (10 + 3 * 100 + 3 * 1000) / 7]]
    assert np.allclose(on_photo(values, (1, 2), Region(0, 0, 2, 1)), expected)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, np.float64),
        (torch.float16, np.float32),
        (torch.bfloat16, np.float32),
        (torch.int64, np.int64),
        (torch.bool, np.bool_),
    ],
)
def test_leading_dimensions_and_dtypes(dtype: torch.dtype, expected: type) -> None:
    values = torch.ones(2, 3, 4, 4, dtype=dtype, requires_grad=dtype.is_floating_point)
    landed = on_photo(values, (8, 6), Region(0, 1, 6, 7))
    assert landed.shape == (2, 3, 8, 6)
    assert landed.dtype == expected
    assert landed[..., 1:7, :].all()
    assert not landed[..., [0, 7], :].any()
