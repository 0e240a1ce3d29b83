"""The figures and tables of docs/paper-table.md and docs/radiology.md: ``make paper-table``.

The network is the paper's, VGG-16 with the published convolutions, the photos come with
scikit-image and scikit-learn: all of them, none picked. The slice comes with nibabel.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from marks import fill
from photos import SHIPPED, cat_beside_coffee
from torchfbi import Labels, Model, Photo, Preprocess, Settings, load, plot
from torchfbi.evaluate import Comparison, compare
from torchfbi.evaluate.compare import Cell
from torchfbi.evaluate.peers import Method, find
from torchfbi.metrics import fine_grain, isolated, morans_i, support_fraction, total_variation
from torchfbi.models import onnx, vgg

NETWORK = "vgg16-distilled"
HERE = Path(__file__).parent
PAGE, RADIOLOGY, FOLDER = HERE / "paper-table.md", HERE / "radiology.md", HERE / "gallery"

paper = Settings.paper
SECTION_3: dict[str, Settings] = {
    "paper, tau 10, k 50 %": paper(),
    "paper, tau 1, k 50 %": paper(tau=1.0),
    "paper, tau 0, k 10 %": paper(tau=0.0, k=0.1),
    "paper, tau 0, k 50 %": paper(tau=0.0),
    "paper, tau 0, k 100 %": paper(tau=0.0, k=1.0),
    "paper, no tau, k 100 %": paper(tau=None, k=1.0),
    "paper, no tau, k 100 %, switches": paper(tau=None, k=1.0, pooling="winner"),
}
"""The paper's setting first; "no tau" masks nothing by the forward pass. The last unpools as
DeconvNet does, to the place of the maximum."""

OTHERS = ("guided-backprop", "deconvnet")
FINDINGS = ("glioma", "meningioma", "no tumour", "pituitary tumour")


def methods(*names: str) -> list[Method]:
    """Settings of ``SECTION_3`` and peers by the names that figures and tables give them."""
    return [
        replace(find(SECTION_3[name]), name=name) if name in SECTION_3 else find(name)
        for name in names
    ]


@functools.cache
def photos() -> Comparison:
    """Every method on every photo."""
    return compare(load(NETWORK), list(SHIPPED), methods(*SECTION_3, *OTHERS))


@functools.cache
def beside() -> Comparison:
    """Two classes asked of one photo: the most probable one, and the first of the other half."""
    photo = Photo(cat_beside_coffee(), "cat beside coffee")
    names = ("paper, tau 10, k 50 %", "paper, tau 0, k 50 %", "guided-backprop", "fbi", "grad-cam")
    return compare(load(NETWORK), photo, methods(*names), ["tiger cat", "tea cup"])


def only(found: Comparison, names: Sequence[str], rows: int | None = None) -> Comparison:
    """Some methods of a comparison, and its first rows."""
    chosen = [[method.name for method in found.methods].index(name) for name in names]
    return replace(
        found,
        methods=tuple(found.methods[i] for i in chosen),
        rows=tuple(
            replace(row, cells=tuple(row.cells[i] for i in chosen)) for row in found.rows[:rows]
        ),
    )


def cells(found: Comparison) -> dict[str, list[Cell]]:
    """What each method answered."""
    return {
        method.name: [row.cells[i] for row in found.rows] for i, method in enumerate(found.methods)
    }


def agreement() -> str:
    """How often the network says what its teacher says."""
    told = vgg.about()
    rows = [["photos", "teacher's class first", "among the first five", "max z", "min z"]]
    for name, what in (("never seen", "never seen"), ("learnt", "learnt from")):
        part = told[name]
        numbers = [f"{part[top]:.1%}" for top in ("top1", "top5")]
        numbers += [f"{part[end]:.1f}" for end in ("largest", "smallest")]
        rows.append([f"{part['photos']} {what}", *numbers])
    return table(rows)


def kept() -> str:
    """What the seed is made of, and how much of each photo goes through tau."""
    model, found = load(NETWORK), cells(photos())
    names = list(SECTION_3)[:2]
    heads = [name.replace("paper,", "kept at") for name in names]
    rows = [["photo", "most probable", "max z", "min z", *heads]]
    for i, row in enumerate(photos().rows):
        x = model.preprocess(Photo.read(SHIPPED[i]))[0]
        z = model.module(x[None])[0]
        shares = [support_fraction(found[name][i].map[None]).item() for name in names]
        rows.append(
            [row.photo, f"{row.label} ({row.probability:.0%})", f"{z.max():.1f}", f"{z.min():.1f}",
             *(f"{share:.1%}" if share else "nothing" for share in shares)]
        )  # fmt: skip
    return table(rows)


def noise() -> str:
    """Measures of noise, means over the photos; a photo with an empty map counts in none."""
    measures: dict[str, Callable[[Tensor], Tensor]] = {
        "total variation": total_variation,
        "fine grain": fine_grain,
        "isolated": isolated,
        "Moran's I": morans_i,
        "support": support_fraction,
    }
    found = {name: torch.stack([c.map for c in some]) for name, some in cells(photos()).items()}
    rows = [["", *measures, "empty"]]
    for name, drawn in found.items():
        there = drawn[drawn.flatten(1).any(1)]
        numbers = [
            f"{measure(there).mean():.2f}" if len(there) else "" for measure in measures.values()
        ]
        rows.append([name, *numbers, f"{len(drawn) - len(there)} of {len(drawn)}"])
    ours, theirs = (found[name] for name in ("paper, tau 0, k 50 %", "guided-backprop"))
    wins = ["*tau 0, k 50 %: less noise than guided backprop*"]
    for name, measure in measures.items():
        less = measure(ours) < measure(theirs)
        less = ~less if name == "Moran's I" else less
        wins.append("" if name == "support" else f"*{int(less.sum())} of {len(ours)}*")
    return table([*rows, [*wins, ""]])


def deconvnet() -> str:
    """How alike two methods are: the cosine between their values, the mean of the photos."""
    found = cells(photos())
    rows = [["", *OTHERS]]
    for name in SECTION_3:
        row = [name]
        for other in OTHERS:
            pairs = zip(found[name], found[other], strict=True)
            cosines = [
                torch.cosine_similarity(a.values.flatten(), b.values.flatten(), 0).item()
                for a, b in pairs
                if a.values.any()
            ]
            row.append(f"{sum(cosines) / len(cosines):.2f}" if cosines else "")
        rows.append(row)
    return table(rows)


def classes() -> str:
    """Asked for the cat and for the coffee: the share of the map on the half of each."""
    rows = [["", "tiger cat: on its half", "tea cup: on its half", "correlation of the two"]]
    for name, (cat, coffee) in cells(beside()).items():
        if not (cat.map.any() and coffee.map.any()):
            rows.append([name, *("nothing" if not c.map.any() else "" for c in (cat, coffee)), ""])
            continue
        left, other = (c.map[:, :112].sum() / c.map.sum() for c in (cat, coffee))
        alike = torch.corrcoef(torch.stack([cat.map, coffee.map]).flatten(1))[0, 1]
        rows.append([name, f"{left:.2f}", f"{1 - other:.2f}", f"{alike:.2f}"])
    return table(rows)


def table(rows: list[list[str]]) -> str:
    """Rows of cells as Markdown; the first is the head."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def table_1() -> Comparison:
    """The paper's Table 1: its settings beside guided backprop."""
    names = list(SECTION_3)
    return only(photos(), [names[0], names[1], names[3], "guided-backprop"])


def filters() -> Comparison:
    """10, 50 and 100 % of the filters, and no masking beside DeconvNet."""
    return only(photos(), [*list(SECTION_3)[2:6], "deconvnet"], rows=3)


def tumours(right: bool = True) -> Model:
    """The tumour network with its own preprocessing, or with what is assumed without a word."""
    scaled = Preprocess(240, 240, (0,) * 3, (1,) * 3, "bicubic", fit="stretch")
    model = onnx.load(vgg.tumour_file(), scaled if right else None)
    return replace(model, labels=Labels(FINDINGS), name="tumour VGG-16")


def head_slice() -> Photo:
    """A slice through a healthy head, as docs/radiology.md makes it."""
    path = Path(nibabel.__file__).parent / "tests/data/example4d.nii.gz"
    plane = np.rot90(nibabel.load(path).get_fdata()[:, :, 12, 0])
    low, high = np.percentile(plane, (1, 99.5))
    grey = (255 * np.clip((plane - low) / (high - low), 0, 1)).astype(np.uint8)
    return Photo.read(np.asarray(Image.fromarray(grey).resize((480, 480))), "slice.png")


def scaling() -> str:
    """What the tumour network says under the right scaling, and under ImageNet's."""
    rows = [["preprocessing", "input", *FINDINGS]]
    for right, name in ((True, "the network's own"), (False, "ImageNet's, assumed")):
        model = tumours(right)
        x = model.preprocess(head_slice())[0]
        said = model.module(x[None])[0].tolist()
        rows.append([name, f"{x.min():.1f} to {x.max():.1f}", *(f"{p:.1%}" for p in said)])
    return table(rows)


def tumour() -> Comparison:
    """A slice through a healthy head, asked for what the network says and what it should say."""
    names = ("paper, tau 0, k 50 %", "guided-backprop", "fbi")
    return compare(tumours(), head_slice(), methods(*names), ["meningioma", "no tumour"])


PARTS = {
    "agreement": (PAGE, agreement),
    "kept": (PAGE, kept),
    "noise": (PAGE, noise),
    "deconvnet": (PAGE, deconvnet),
    "classes": (PAGE, classes),
    "scaling": (RADIOLOGY, scaling),
}
FIGURES = {"table-1": table_1, "filters": filters, "vgg-classes": beside, "tumour": tumour}


def draw(name: str, compared: Comparison) -> None:
    """Save a figure for light and dark pages."""
    for theme, dark in (("light", False), ("dark", True)):
        png = io.BytesIO()
        plot.save(compared.plot(dark=dark), png, dpi=90)
        picture = Image.open(png).convert("RGB")
        picture.save(FOLDER / f"{name}-{theme}.webp", quality=82, method=6)


def main(parts: list[str]) -> None:
    """Measure and draw what is named, or all."""
    for part in parts or [*PARTS, *FIGURES]:
        if part in FIGURES:
            draw(part, FIGURES[part]())
        else:
            page, measure = PARTS[part]
            fill(page, part, measure())


if __name__ == "__main__":
    main(sys.argv[1:])
