"""torchvision's classifiers, with the weights, preprocessing and labels it publishes."""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from torchfbi.errors import ModelError, needs
from torchfbi.models.labels import Labels
from torchfbi.models.model import Listing, Model
from torchfbi.models.preprocess import Preprocess
from torchfbi.system.quiet import quiet

_log = logging.getLogger(__name__)
_importing = threading.Lock()
_schemas: list[torch.library.Library] = []  # schemas are withdrawn when their Library is collected

_MISSING_OPERATOR = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def import_torchvision() -> Any:
    """Import torchvision, also where its compiled operators do not fit the installed torch.

    There its import fails over box suppression, which classifiers never use: the schemas of
    those operators are declared and the import is tried again. This is logged once.

    Returns:
        The module ``torchvision``.

    Raises:
        ModelError: torchvision is missing, or fails to import in another way.
    """
    with _importing:
        try:
            with needs("torchvision"):
                return _import()
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"torchvision does not import beside torch {torch.__version__} ({error}). "
                "Install the torchvision release that belongs to it."
            ) from error


def _import() -> Any:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            raise
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _schemas.append(library)
    for schema in _SCHEMAS:
        library.define(schema)
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    torchvision = importlib.import_module("torchvision")
    _log.info(
        "torchvision %s has compiled operators that do not fit torch %s: its classifiers work, "
        "detection does not.",
        torchvision.__version__,
        torch.__version__,
    )
    return torchvision


def names() -> list[str]:
    """The classifiers that torchvision builds, such as ``"resnet50"``, sorted.

    Raises:
        ModelError: torchvision cannot be imported.
    """
    models = import_torchvision().models
    return sorted(models.list_models(module=models))


def describe(name: str) -> Listing:
    """What torchvision publishes about one of ``names()``."""
    weights = import_torchvision().models.get_model_weights(name).DEFAULT
    side = weights.transforms().crop_size[0]
    found = "on disk" if _file(weights).exists() else "to download"
    return Listing(
        f"torchvision:{name}", weights.meta["num_params"], f"{side}x{side}", "torchvision", found
    )


def load(name: str, pretrained: bool = True) -> Model:
    """Load one of ``names()``.

    Args:
        name: without the ``torchvision:`` in front.
        pretrained: with torchvision's default weights, downloaded if they are not in the
            ``checkpoints`` folder of ``torch.hub.get_dir()``; else with random ones.

    Raises:
        ModelError: the weights can neither be read nor downloaded.
    """
    models = import_torchvision().models
    weights = models.get_model_weights(name).DEFAULT
    # These two warn unless told how to draw their random weights.
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if pretrained:
        module = _pretrained(models, name, weights)
    else:
        module = models.get_model(name, weights=None, **options)
    return Model(
        module.eval().requires_grad_(False),
        _preprocess(weights.transforms()),
        _labels(weights.meta["categories"]),
        f"torchvision:{name}",
    )


def _pretrained(models: Any, name: str, weights: Any) -> Any:
    file = _file(weights)
    downloading = not file.exists()
    try:
        with quiet("stdout", onto="stderr", warn=True):  # torch.hub announces downloads there
            return models.get_model(name, weights=weights)
    except Exception as error:  # no connection, no space, no permission, a damaged file
        happened = "cannot be downloaded" if downloading else f"in {file} are damaged"
        raise ModelError(
            f"torchvision:{name}: the weights {happened} ({error}). "
            f"Download {weights.url} and save it as {file}."
        ) from error


def _file(weights: Any) -> Path:
    """Where torchvision keeps them."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def _preprocess(transforms: Any) -> Preprocess:
    return Preprocess(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        mean=transforms.mean,
        std=transforms.std,
        interpolation=transforms.interpolation.value,
    )


def _labels(categories: list[str]) -> Labels:
    imagenet = Labels.imagenet()
    return Labels(categories, imagenet.synonyms if len(categories) == len(imagenet) else ())
