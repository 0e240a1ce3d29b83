"""Clips: the frames that are chosen, what is written of them, and what stops it on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchfbi import api
from torchfbi.errors import ModelError
from torchfbi.models import clips
from torchfbi.plot import clip

TIMES = [0.0, 0.1, 0.2, 0.3, 0.5, 0.9]


def pictures(size: tuple[int, int] = (40, 28)) -> list[Image.Image]:
    """As many as there are times, each brighter than the one before."""
    return [Image.new("RGB", size, (40 * number + 20,) * 3) for number in range(len(TIMES))]


@pytest.mark.parametrize("kind", clip.FORMATS)
def test_what_is_written_is_read_again(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    clip.save(iter(pictures((41, 29))), TIMES, path, 0.4)
    seen = list(clips.frames(path, 10))
    assert [time for time, _ in seen] == pytest.approx(TIMES, abs=0.002)
    assert [photo.pixels.mean() for _, photo in seen] == pytest.approx(range(20, 260, 40), abs=4)
    assert {photo.shape for _, photo in seen} == {(29, 41) if kind == "gif" else (28, 40)}
    assert [round(time, 2) for time, _ in clips.frames(path, 5)] == [0, 0.2, 0.5, 0.9]


def test_a_clip_that_was_filmed_sideways_is_shown_upright(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    left_bright = Image.fromarray(np.repeat(np.uint8([[[250], [5]]]), 3, 2)).resize((64, 32), 0)
    clip.save([left_bright], [0.0], path, 1)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # of the track, see ISO/IEC 14496-12, 8.3.2
    quarter = np.array([0, 1 << 16, 0, -1 << 16, 0, 0], ">i4")  # clockwise
    content[matrix : matrix + 24] = quarter.tobytes()
    path.write_bytes(content)
    ((_, photo),) = clips.frames(path, 1)
    assert photo.shape == (64, 32)
    assert photo.pixels[:28].min() > 200
    assert photo.pixels[-28:].max() < 50


def test_ctrl_c_keeps_the_frames_that_are_explained(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained: list[object] = []
    explain = api.explain

    def stopped(*arguments: object) -> object:
        explained.append(arguments)
        if len(explained) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return explain(*arguments)

    monkeypatch.setattr(api, "explain", stopped)
    clip.save(iter(pictures()), TIMES, tmp_path / "a.gif", 0.4)
    before = signal.getsignal(signal.SIGINT)
    result = run("video", "a.gif", "--model", "digits", "--target", "4", "--rate", "10")
    assert result.code == 130
    assert "3 of 6 frames" in result.out
    assert "what was written so far is complete" in result.err
    assert signal.getsignal(signal.SIGINT) is before
    with Image.open(tmp_path / "fbi-out/a-4.gif") as moving:
        assert moving.n_frames == 3
    samples = json.loads((tmp_path / "fbi-out/a-4.json").read_text())["samples"]
    assert [sample["time"] for sample in samples] == pytest.approx(TIMES[:3])
    assert {sample["target"] for sample in samples} == {4}


def test_what_cannot_be_done_is_said(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip.save(iter(pictures()), TIMES, tmp_path / "a.mp4", 0.4)
    assert "videos are saved as mp4, webm, gif" in run("video", "a.mp4", "-f", "mov").err
    assert "b.mp4 is no file" in run("video", "b.mp4").err
    assert "'torchfbi video'" in run("explain", "a.mp4").err
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModelError, match=r"pip install 'torchfbi\[video\]'"):
        next(clips.frames(tmp_path / "a.mp4", 1))
