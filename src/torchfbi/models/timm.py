"""timm's classifiers, with the weights, preprocessing and labels it publishes."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch.overrides import TorchFunctionMode

from torchfbi.errors import ModelError, first_line, needs
from torchfbi.models.labels import Labels
from torchfbi.models.model import Listing, Model
from torchfbi.models.parameters import known
from torchfbi.models.preprocess import Preprocess
from torchfbi.models.torchvision import import_torchvision


def import_timm() -> Any:
    """Import timm, which imports torchvision.

    Raises:
        ModelError: one of the two is missing.
    """
    import_torchvision()
    with needs("timm"):
        return importlib.import_module("timm")


def names() -> list[str]:
    """What timm builds, sorted: architectures (``"resnet50"``, with timm's default weights) and
    each of their published weights (``"resnet50.a1_in1k"``).

    Raises:
        ModelError: timm or torchvision is missing.
    """
    timm = import_timm()
    return sorted({*timm.list_models(), *timm.list_pretrained()})


def describe(name: str) -> Listing:
    """What is known of one of ``names()``; how many parameters only if they were counted."""
    published = import_timm().get_pretrained_cfg(name)
    _, height, width = published.input_size
    if _hub(published):
        found = "on disk" if _cached(published) else "to download"
    elif published.url:
        found = "on disk" if _file(published).exists() else "to download"
    else:
        found = "none"
    parameters = known(f"timm:{name}")
    return Listing(f"timm:{name}", parameters, f"{height}x{width}", "timm", found)


class _Uninitialised(TorchFunctionMode):
    """Nothing is written to any tensor: on the meta device that takes most of the time."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name.endswith("_") and not name.endswith("__"):
            return next(iter((*args, *kwargs.values())))
        return function(*args, **kwargs)


def count(name: str) -> int:
    """The number of parameters of one of ``names()``: it is built without memory for them.

    Raises:
        ModelError: timm cannot build it.
    """
    timm = import_timm()
    try:
        with torch.device("meta"), _Uninitialised():
            module = timm.create_model(name)
    except Exception as error:  # of the architecture's own code
        raise ModelError(f"timm:{name} cannot be built: {first_line(error)}") from error
    return sum(p.numel() for p in module.parameters())


def load(name: str, pretrained: bool = True) -> Model:
    """Load one of ``names()``.

    Args:
        name: without the ``timm:`` in front.
        pretrained: with the published weights, downloaded if they are not in the cache of
            huggingface_hub; else with random ones.

    Raises:
        ModelError: there are no such weights, or they can neither be read nor downloaded.
    """
    timm = import_timm()
    published = timm.get_pretrained_cfg(name)
    if pretrained and not (_hub(published) or published.url):
        raise ModelError(f"timm:{name}: timm publishes no weights for it, only the architecture.")
    cached = _cached(published) if pretrained else None
    try:
        if pretrained and _hub(published) and cached is None:
            _reach_hub()
        # Given the file, timm does not ask the hub whether there is a newer one.
        overlay = {"file": cached} if cached is not None else None
        module = timm.create_model(name, pretrained=pretrained, pretrained_cfg_overlay=overlay)
    except Exception as error:  # no connection, no space, no permission, a damaged file
        if not pretrained:
            raise ModelError(f"timm:{name} cannot be built: {first_line(error)}") from error
        raise ModelError(
            f"timm:{name}: the weights are not here and cannot be downloaded "
            f"({first_line(error)}). {_remedy(published)}"
        ) from error
    module = module.eval().requires_grad_(False)
    return Model(module, _preprocess(timm, module), _labels(timm, module), f"timm:{name}")


def _hub(published: Any) -> str:
    return str(published.hf_hub_id or "").partition("@")[0]


def _huggingface_hub() -> Any:
    return importlib.import_module("huggingface_hub")  # timm itself needs it


def _cached(published: Any) -> str | None:
    """The file of weights in the cache of huggingface_hub."""
    name = published.hf_hub_filename or "model.safetensors"
    found = _huggingface_hub().try_to_load_from_cache(_hub(published), name)
    return found if isinstance(found, str) else None


def _reach_hub() -> None:
    """Fails at once where there is no connection. huggingface_hub itself would try for most of a
    minute, and say so every time."""
    hub = _huggingface_hub()
    hub.get_session().head(hub.constants.ENDPOINT, timeout=10)


def _file(published: Any) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(published.url).path).name)


def _remedy(published: Any) -> str:
    """What to download to where."""
    if place := _hub(published):
        folder = f"models--{place.replace('/', '--')}"
        cache = _huggingface_hub().constants.HF_HUB_CACHE
        return f"Where there is a connection, run `hf download {place}`; copy {folder} to {cache}."
    return f"Download {published.url} and save it as {_file(published)}."


def _preprocess(timm: Any, module: Any) -> Preprocess:
    data = timm.data.resolve_model_data_config(module)
    channels, height, width = data["input_size"]
    return Preprocess(
        resize=math.floor(min(height, width) / data["crop_pct"]),
        crop=height if height == width else (height, width),
        mean=data["mean"][:channels],
        std=data["std"][:channels],
        interpolation="bilinear" if data["interpolation"] == "bilinear" else "bicubic",
        channels="L" if channels == 1 else "RGB",
        # Squeezed and then cropped (dm_nfnet): here cropped alone, the same on square photos.
        fit="stretch" if data["crop_mode"] == "squash" and data["crop_pct"] == 1 else "crop",
    )


def _labels(timm: Any, module: Any) -> Labels:
    classes: int = module.num_classes or module.num_features
    subset = timm.data.infer_imagenet_subset(module)
    if subset == "imagenet-1k":
        return Labels.imagenet()
    if subset is None:
        return Labels.numbered(classes)
    info = timm.data.ImageNetInfo(subset)
    words = [info.index_to_description(i).split(", ") for i in range(classes)]
    return Labels((names[0] for names in words), words)
