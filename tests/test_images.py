"""Reading any picture, and refusing what is none."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from torchfbi.errors import ImageError
from torchfbi.models.images import MAX_PIXELS, Photo

CORNERS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [0, 0, 0], [128, 128, 128]]],
    np.uint8,
)  # 2 x 3: red, green, blue; white, black, grey


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Sources and names


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "file", "stream", "PIL", "array"])
def test_every_kind_of_source(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "corners.png"
    image = Image.fromarray(CORNERS)
    image.save(path)
    with path.open("rb") as file:
        source, name = {
            "str": (str(path), "corners.png"),
            "path": (path, "corners.png"),
            "bytes": (path.read_bytes(), "photo"),
            "file": (file, "corners.png"),
            "stream": (io.BytesIO(path.read_bytes()), "photo"),
            "PIL": (image, "photo"),
            "array": (CORNERS, "photo"),
        }[kind]
        photo = Photo.read(source)
    assert np.array_equal(photo.pixels, CORNERS)
    assert photo.name == name
    assert photo.shape == (2, 3)


def test_a_name_can_be_given() -> None:
    assert Photo.read(CORNERS, name="upload.png").name == "upload.png"


def test_an_array_is_copied() -> None:
    array = CORNERS.copy()
    photo = Photo.read(array)
    array[:] = 0
    assert np.array_equal(photo.pixels, CORNERS)


def test_a_pil_image_is_not_changed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(Image.fromarray(CORNERS), "PNG", exif=exif)))
    assert Photo.read(image).shape == (3, 2)
    assert image.size == (3, 2)
    assert image.getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(image), CORNERS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_reach_from_0_to_1(dtype: type) -> None:
    array = np.array([[0, 0.5, 1]], dtype)
    assert Photo.read(array).pixels.tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


# Colour modes


def test_grey() -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(Photo.read(grey).pixels, expected)
    assert np.array_equal(Photo.read(encoded(Image.fromarray(grey), "PNG")).pixels, expected)


def test_one_bit() -> None:
    data = encoded(Image.fromarray(np.array([[False, True]])), "PNG")
    assert Photo.read(data).pixels.tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 51, 255)):
        image.putpixel((x, 0), (0, 0, 0, alpha))
    # Black at alpha 51/255 = 0.2 leaves 0.8 of the white: 204.
    expected = [[[255] * 3, [204] * 3, [0] * 3]]
    assert Photo.read(encoded(image.convert(mode), "PNG")).pixels.tolist() == expected
    assert Photo.read(image.convert(mode)).pixels.tolist() == expected
    if mode == "RGBA":
        assert Photo.read(np.asarray(image)).pixels.tolist() == expected


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    data = encoded(image, "PNG", transparency=transparency)
    assert Photo.read(data).pixels.tolist() == [[[10, 20, 30], [255] * 3]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format: str) -> None:
    grey = np.array([[0, 257, 25700, 32768, 65535]], np.uint16)
    data = encoded(Image.fromarray(grey), format)
    assert Photo.read(data).pixels[0, :, 0].tolist() == [0, 1, 100, 128, 255]


def test_32_bit_grey() -> None:
    within = np.array([[0, 25700, 65535]], np.int32)
    assert Photo.read(Image.fromarray(within)).pixels[0, :, 0].tolist() == [0, 100, 255]
    with pytest.raises(ImageError, match="from 0 to 65536"):
        Photo.read(Image.fromarray(np.array([[0, 65536]], np.int32)))


def test_float_tiff() -> None:
    data = encoded(Image.fromarray(np.array([[0, 0.4, 1]], np.float32)), "TIFF")
    assert Photo.read(data).pixels[0, :, 0].tolist() == [0, 102, 255]
    with pytest.raises(ImageError, match="from 0 to 255"):
        Photo.read(Image.fromarray(np.array([[0, 255]], np.float32)))


def test_cmyk_jpeg_with_adobe_inversion() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    data = encoded(image, "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(Photo.read(data).pixels.astype(int) - [255, 0, 0]).max() <= 2


# Orientation, animations, pages


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(format: str, orientation: int) -> None:
    # As stored for each tag, so that the upright picture is always `upright`.
    upright = np.kron(CORNERS, np.ones((16, 16, 1), np.uint8))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if format == "JPEG" else {}
    options |= {"lossless": True} if format == "WEBP" else {}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options)
    photo = Photo.read(data)
    assert photo.shape == upright.shape[:2]
    centres = photo.pixels[8::16, 8::16].astype(int)
    assert np.abs(centres - CORNERS).max() <= 3


def test_damaged_exif_does_not_spoil_the_picture() -> None:
    data = encoded(Image.fromarray(CORNERS), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    assert np.array_equal(Photo.read(data).pixels, CORNERS)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_read(format: str) -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(red, format, save_all=True, append_images=[blue], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.array_equal(Photo.read(data).pixels, np.full((8, 8, 3), [255, 0, 0]))


# What cannot be read


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data, end = chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + data + end


@pytest.mark.parametrize("height", [8948, 17896, 50000], ids=["ours", "warning", "error"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_decoding(height: int) -> None:
    with pytest.raises(ImageError, match=r"bomb.png has over 89 million pixels"):
        Photo.read(png_claiming(10_000, height), name="bomb.png")


def test_a_bomb_is_refused_alike_where_warnings_are_errors() -> None:
    with pytest.raises(ImageError, match="over 89 million pixels"):
        Photo.read(png_claiming(10_000, 10_000))


def test_the_limit_itself_is_no_bomb() -> None:
    with pytest.raises(ImageError, match="cut short"):  # nothing follows the header
        Photo.read(png_claiming(MAX_PIXELS, 1))


def test_pil_is_left_as_it_was() -> None:
    before = [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES]
    Photo.read(encoded(Image.fromarray(CORNERS), "PNG"))
    assert before == [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"half.{format.lower()}"
    data = encoded(Image.fromarray(noise(64, 64)), format)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=rf"half\.{format.lower()}"):
        Photo.read(path)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("a cat")
    for name, message in (
        ("empty.png", "is empty"),
        ("notes.txt", "no picture"),
        ("missing.png", "is no file"),
        ("", "is a folder"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            Photo.read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_vector_drawing_is_not_interpreted() -> None:
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ImageError, match="vector drawing"):
        Photo.read(drawing)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "is empty"),
        (io.BytesIO(), "is empty"),
        (io.StringIO("cat"), "mode .rb."),
        (None, "from NoneType"),
        (torch.zeros(2, 2), "from Tensor"),
        (Image.new("RGB", (0, 5)), r"\(5, 0, 3\), not a non-empty"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.full((2, 2), 255.0), "from 255 to 255"),
        (np.full((2, 2), np.nan), "from nan to nan"),
        (np.array([[0, 1, np.inf]]), "to inf"),
    ],
)
def test_sources_that_are_no_pictures(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        Photo.read(source)  # type: ignore[arg-type]


def test_a_photo_checks_its_pixels() -> None:
    with pytest.raises(ImageError, match=r"float64 \(2, 2\)"):
        Photo(np.zeros((2, 2)), "x")


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    format=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_a_damaged_file_is_read_or_refused(format: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(encoded(Image.fromarray(noise(16, 16)), format))
    for where, value in changes:
        data[int(where * (len(data) - 1))] = value
    try:
        photo = Photo.read(bytes(data))
    except ImageError:
        return
    assert photo.pixels.dtype == np.uint8


def test_threads() -> None:
    data = [encoded(Image.fromarray(noise(32, 32, seed)), "PNG") for seed in range(8)]
    barrier = threading.Barrier(8)

    def read(seed: int) -> np.ndarray:
        barrier.wait()
        return Photo.read(data[seed]).pixels

    with ThreadPoolExecutor(8) as pool:
        for seed, pixels in enumerate(pool.map(read, range(8))):
            assert np.array_equal(pixels, noise(32, 32, seed))
