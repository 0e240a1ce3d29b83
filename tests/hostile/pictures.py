"""Pictures."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from hostile.case import kind, sparse, zeros
from torchfbi import Photo
from torchfbi.errors import ImageError

picture = kind("picture", Photo.read, ImageError)
GIGABYTE = b"x\xda" + zeros(2**10) + bytes(4)
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, format)
    return buffer.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (1, 1)) -> bytes:
    """A PNG with those chunks between its header and its end."""
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in ((b"IHDR", header), *chunks, (b"IEND", b""))
    )


for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF", "PPM", "TGA"):

    def cut_short(folder: Path, format: str = format) -> Path:
        data = encoded(format)
        return written(folder / f"half.{format.lower()}", data[: len(data) // 2])

    cut_short.__name__ = f"{format}_cut_short"
    picture(r"half\.")(cut_short)


@picture("million pixels")
def png_of_ten_gigapixels(folder: Path) -> Path:
    return written(folder / "a.png", png((b"IDAT", zlib.compress(b"")), size=(100_000, 100_000)))


@picture(None)
def png_pixel_with_a_gigabyte_behind_it(folder: Path) -> Path:
    return written(folder / "a.png", png((b"IDAT", GIGABYTE)))


@picture("damaged")
def png_text_that_unpacks_to_a_gigabyte(folder: Path) -> Path:
    text = b"a\0\0" + GIGABYTE
    return written(folder / "a.png", png((b"zTXt", text), (b"IDAT", zlib.compress(bytes(4)))))


@picture("damaged")
def png_colour_profile_that_unpacks_to_a_gigabyte(folder: Path) -> Path:
    profile = b"a\0\0" + GIGABYTE
    return written(folder / "a.png", png((b"iCCP", profile), (b"IDAT", zlib.compress(bytes(4)))))


@picture("damaged")
def png_chunk_longer_than_the_file(folder: Path) -> Path:
    return written(folder / "a.png", png()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT")


@picture("million pixels")
def jpeg_of_four_gigapixels(folder: Path) -> Path:
    data = encoded("JPEG")
    frame = data.index(b"\xff\xc0")
    claimed = data[: frame + 5] + b"\xff\xff\xff\xff" + data[frame + 9 :]
    return written(folder / "a.jpg", claimed)


@picture("million pixels")
def gif_of_four_gigapixels(folder: Path) -> Path:
    return written(folder / "a.gif", b"GIF89a\xff\xff\xff\xff" + encoded("GIF")[10:])


@picture("million pixels")
def ppm_of_a_terapixel(folder: Path) -> Path:
    return sparse(folder / "a.ppm", 2**40, b"P6 1000000 1000000 255\n")


@picture(".")
def tiff_directory_that_points_at_itself(folder: Path) -> Path:
    return written(folder / "a.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0")


@picture(".")
def tiff_tag_of_four_billion_entries(folder: Path) -> Path:
    tags = [(256, 3, 1, 64), (257, 3, 1, 64), (273, 4, 2**32 - 1, 8)]
    content = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return written(folder / "a.tif", b"II*\0\x08\0\0\0\x03\0" + content + bytes(4))


@picture("million pixels|damaged")
def icon_that_holds_a_picture_of_ten_gigapixels(folder: Path) -> Path:
    inner = png((b"IDAT", zlib.compress(b"")), size=(100_000, 100_000))
    entry = struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22)
    return written(folder / "a.ico", entry + inner)


@picture(".")
def psd_with_endless_layers(folder: Path) -> Path:
    header = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3)
    sections = struct.pack(">IIIIh", 0, 0, 2**31 - 1, 2**31 - 5, -32768)
    return written(folder / "a.psd", header + sections + bytes(1000))


@picture("vector drawing")
def eps_that_asks_for_ghostscript(folder: Path) -> Path:
    program = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(executed) (w) file\n"
    )
    return written(folder / "a.eps", program)


@picture("no picture")
def svg_that_includes_a_file(folder: Path) -> Path:
    text = '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    return written(folder / "a.png", text.encode())


@picture("no picture")
def archive_called_png(folder: Path) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("../../a.png", encoded("PNG"))
    with zipfile.ZipFile(folder / "a.png", "w") as archive:
        archive.writestr("inner.zip", inner.getvalue())
    return folder / "a.png"


@picture("no picture")
def gzip_of_a_picture(folder: Path) -> Path:
    return written(folder / "a.png", gzip.compress(encoded("PNG")))


@picture("no picture")
def terabyte_of_nothing(folder: Path) -> Path:
    return sparse(folder / "a.png", 2**40)


@picture("damaged|no picture|million")
def terabyte_behind_a_header(folder: Path) -> Path:
    sizes = struct.pack("<IHHIIiiHHI", 0, 0, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, 0)
    return sparse(folder / "a.bmp", 2**40, b"BM" + sizes)


@picture("is a folder")
def folder(folder: Path) -> Path:
    return folder


@picture("is no file")
def pipe_that_nobody_writes_to(folder: Path) -> Path:
    os.mkfifo(folder / "a.png")
    return folder / "a.png"


@picture("is no file")
def endless_device(folder: Path) -> Path:
    (folder / "a.png").symlink_to("/dev/zero")
    return folder / "a.png"


@picture("is no file|cannot be opened")
def link_to_itself(folder: Path) -> Path:
    (folder / "a.png").symlink_to("a.png")
    return folder / "a.png"


@picture("is no file")
def link_to_nothing(folder: Path) -> Path:
    (folder / "a.png").symlink_to("missing")
    return folder / "a.png"


@picture("cannot be opened")
def name_of_five_thousand_letters(folder: Path) -> str:
    return str(folder / ("a" * 5000))


@picture("is no file")
def name_with_a_zero_byte(folder: Path) -> str:
    return str(folder / "a\0b.png")


@picture(None)
def name_of_dashes_and_line_breaks(folder: Path) -> Path:
    return written(folder / "-rf\n\x1b[31m‮gnp.é☃", encoded("PNG"))
