"""What docs/batch.md says of resuming and of the two engines: 2,000 images, 20 kills.

python docs/batch_proof.py images FOLDER     # shipped photos, altered; 40 files are damaged
python docs/batch_proof.py engines FOLDER    # both engines, compared row for row
python docs/batch_proof.py kills FOLDER      # SIGKILL at 20 random moments, and on each time
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage
import sklearn
import torch
from PIL import Image, ImageEnhance, ImageOps

from torchfbi import ForwardBackward, batch, load
from torchfbi.batch.decode import decode
from torchfbi.batch.inputs import find

COUNT, DAMAGED, KILLS, SHARD, BATCHES = 2000, 40, 20, 25, 24
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF"}
PHOTOS = [
    *(Path(skimage.__file__).parent / "data" / name for name in (
        "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png",
        "rocket.jpg",
    )),
    *(Path(sklearn.__file__).parent / "datasets" / "images" / name for name in (
        "china.jpg", "flower.jpg",
    )),
]  # fmt: skip
OPTIONS = ["--model", "digits", "--batch", "8", "--threads", "1", "--shard", str(SHARD)]


def images(folder: Path) -> None:
    """Write the images into a new folder; every fiftieth is damaged in one of ten ways."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    photos = [Image.open(path).convert("RGB") for path in PHOTOS]
    for photo in photos:
        photo.thumbnail((400, 400))
    for number in range(COUNT):
        photo = photos[number % len(photos)]
        side = rng.randint(120, min(photo.size))
        left, top = (rng.randint(0, length - side) for length in photo.size)
        picture = photo.crop((left, top, left + side, top + side)).rotate(rng.uniform(-20, 20))
        picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.6, 1.4))
        if rng.random() < 0.5:
            picture = ImageOps.mirror(picture)
        suffix = rng.choice(list(FORMATS))
        buffer = io.BytesIO()
        picture.save(buffer, FORMATS[suffix])
        content = buffer.getvalue()
        if number % (COUNT // DAMAGED) == 7:
            content = damaged(content, number // (COUNT // DAMAGED) % 10, rng)
        path = folder / f"{number // 250}" / f"{number:04}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def damaged(content: bytes, how: int, rng: random.Random) -> bytes:
    """What is left of a file after one of ten accidents."""
    return (
        [
            b"",
            content[:4],
            content[: len(content) // 20],
            b"\0" * len(content),
            rng.randbytes(3000),
            b"<!doctype html><title>404</title>",
            b"PK\x03\x04" + content,
            b"GIF89a\xff\xff\xff\xff\0\0\0",
            b"\x89PNG\r\n\x1a\n" + content[::-1],
        ][how]
        if how < 9
        else _bomb()
    )


def _bomb() -> bytes:
    """A small file that claims 400 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (20000, 20000)).save(buffer, "PNG")
    return buffer.getvalue()


def table(out: Path) -> pa.Table:
    """All rows, without what they took."""
    return pq.read_table(out / "rows").drop_columns("milliseconds")


def command(source: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "torchfbi", "batch", str(source), "-o", str(out),
            *OPTIONS, *more]  # fmt: skip


def engines(folder: Path) -> None:
    """Both engines on all images."""
    tables = {}
    for engine in ("local", "ray"):
        out = folder.with_name(f"{folder.name}-{engine}")
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        code = subprocess.run(
            command(folder, out, "--engine", engine), stderr=subprocess.DEVNULL, check=False
        ).returncode
        seconds = time.perf_counter() - start
        tables[engine] = table(out)
        errors = len(tables[engine]) - tables[engine]["error"].null_count
        print(f"{engine}: {len(tables[engine])} rows, {errors} errors, exit code {code}, "
              f"{seconds:.0f} s", flush=True)  # fmt: skip
    print("identical:", tables["local"].equals(tables["ray"]))


def kills(folder: Path) -> None:
    """Start, kill, start again."""
    rng = random.Random(1)
    out = folder.with_name(f"{folder.name}-killed")
    shutil.rmtree(out, ignore_errors=True)
    rows, kept = out / "rows", dict[str, tuple[int, int]]()
    for kill in range(KILLS):
        before, wanted = len(list(rows.glob("*"))), rng.choice([0, 0, 1, 2, 3])
        process = subprocess.Popen(command(folder, out), stderr=subprocess.DEVNULL)
        while len(list(rows.glob("*"))) < before + wanted:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 12 if wanted == 0 else 2))
        process.kill()
        process.wait()
        for path in rows.glob("*"):
            found = path.stat().st_ino, path.stat().st_mtime_ns
            assert kept.setdefault(path.name, found) == found, f"{path} was written twice"
            pq.read_table(path)  # whole
        left = len(list((out / "rows").glob(".*")))
        print(f"kill {kill + 1}: {len(kept)} shards, {left} incomplete files", flush=True)
    subprocess.run(command(folder, out), stderr=subprocess.DEVNULL, check=False)
    found, reference = table(out), table(folder.with_name(f"{folder.name}-local"))
    numbers = found["index"].to_pylist()
    assert numbers == list(range(COUNT))
    assert all((rows / name).stat().st_mtime_ns == when for name, (_, when) in kept.items())
    print("identical:", found.equals(reference), "rows:", np.unique(numbers).size)


def throughput(folder: Path) -> None:
    """A run, and between its batches the bare walk of one of them: so both meet the same machine.

    While the walk alone is timed, the processes that decode get ahead. What they take is therefore
    measured as well, and added where times are those of the processor.
    """
    model, out = load("efficientnet-lite0"), folder.with_name(f"{folder.name}-timed")
    good = [path for path in sorted(folder.rglob("*.jpg")) if path.stat().st_size > 4000]
    listed = folder.with_name("timed.txt")
    listed.write_text("\n".join(map(str, good[: BATCHES * 8])))
    source = find(listed)
    torch.set_num_threads(1)  # as the processes that decode have
    decoded = decode(source, model.preprocess, range(8))
    start = time.process_time()
    decode(source, model.preprocess, range(8, 40))
    decoding = (time.process_time() - start) / 32
    x = torch.from_numpy(np.stack([one.x for one in decoded]))
    explainer = ForwardBackward(model.module, x)
    for count in (1, 2):
        torch.set_num_threads(count)
        shutil.rmtree(out, ignore_errors=True)
        run, alone = list[tuple[float, float]](), list[tuple[float, float]]()
        last = [0.0, 0.0]

        def tick(
            step: batch.Progress,
            run: list[tuple[float, float]] = run,
            alone: list[tuple[float, float]] = alone,
            last: list[float] = last,
        ) -> None:
            now = time.perf_counter(), time.process_time()
            run.append((now[0] - last[0], now[1] - last[1]))
            explainer(x)
            last[:] = time.perf_counter(), time.process_time()
            alone.append((last[0] - now[0], last[1] - now[1]))

        batch.run(model, listed, out, batch=8, shard=32, threads=count, progress=tick)
        # The first two: getting ready, and the first batch, which waits for the decoders.
        (wall, cpu), (bare, bare_cpu) = (np.sum(part[2:], 0) for part in (run, alone))
        images = 8 * len(run[2:])
        print(
            f"{count} thread(s), ms an image: walk alone {1000 * bare / images:.0f}, "
            f"run {1000 * wall / images:.0f}: {bare / wall:.0%} of the throughput; processor: "
            f"walk alone {1000 * bare_cpu / images:.0f}, run {1000 * cpu / images:.0f} and "
            f"decoding {1000 * decoding:.0f}: {bare_cpu / (cpu + decoding * images):.0%}",
            flush=True,
        )


PARTS = {"images": images, "engines": engines, "kills": kills, "throughput": throughput}

if __name__ == "__main__":
    PARTS[sys.argv[1]](Path(sys.argv[2]))
