"""Verdicts on the command line: printed, saved, required, and of any method's map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from torchfbi import Explanation

TOY = """
import torch
from torch import nn
from torchfbi import Labels, Model, Preprocess

class Green(nn.Module):
    def forward(self, x):
        green = torch.relu(x[:, 1:2] - x[:, :1] - 0.5).mean((2, 3))
        return torch.cat([0.2 + 0 * green, 40 * green], 1)

def make():
    preprocess = Preprocess(32, 32, mean=(0,) * 3, std=(1,) * 3)
    return Model(Green().eval(), preprocess, Labels(["other", "green"]), "green")
"""


def toy(folder: Path) -> tuple[str, str]:
    """A network that looks for green, and a photo with a green square."""
    from PIL import Image

    (folder / "toy.py").write_text(TOY)
    pixels = np.full((32, 32, 3), 128, np.uint8)
    pixels[4:12, 18:26] = (10, 250, 10)
    Image.fromarray(pixels).save(folder / "square.png")
    return f"{folder / 'toy.py'}:make", str(folder / "square.png")


def test_explain_verifies_unless_it_is_told_not_to(run, tmp_path: Path) -> None:
    model, photo = toy(tmp_path)
    command = ("explain", photo, "--model", model, "-o", "out")
    result = run(*command)
    assert result.code == 0
    (verdict,) = Explanation.load("out/square.npz").verdicts
    assert f"verified: {verdict.ruling}" in result.out
    assert " ".join(verdict.sentence.split()) in " ".join(result.out.split())
    assert verdict.passes <= 60
    required = run(*command, "--require-verified", "--json")
    found = json.loads(required.out)[0]["verdict"]
    assert found["ruling"] == verdict.ruling
    assert required.code == (0 if verdict.holds else 1)
    without = run(*command, "--no-verify")
    assert "verified" not in without.out
    assert Explanation.load("out/square.npz").verdicts == ()
    refused = run(*command, "--no-verify", "--require-verified")
    assert refused.code == 2
    assert "--no-verify leaves out" in refused.err


def test_what_does_not_hold_fails_where_it_is_required(run, tmp_path: Path) -> None:
    """Asked for a class that is in no part of the photo, nothing is found."""
    model, photo = toy(tmp_path)
    options = ("explain", photo, "--model", model, "--target", "other")
    assert run(*options).code == 0
    strict = run(*options, "--require-verified")
    assert strict.code == 1
    assert "1 of 1 explanations do not hold as a whole" in strict.err


def test_compare_verifies_any_map(run, tmp_path: Path) -> None:
    model, photo = toy(tmp_path)
    options = ("compare", photo, "--model", model, "--methods", "fbi", "random", "--verify")
    found = json.loads(run(*options, "--json").out)["rows"][0]["methods"]
    ours, random = (cell["verdict"] for cell in found)
    assert ours["claimed"]["share"] < random["claimed"]["share"]
    assert random["ruling"] != "holds"
    table = run(*options)
    assert "suffices" in table.out
    assert ours["ruling"] in table.out
