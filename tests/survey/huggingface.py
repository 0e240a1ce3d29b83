"""The vision classes of Hugging Face's transformers, with random weights and few layers."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from torchfbi.errors import ModelError

_NO_IMAGE_CLASSIFIERS = {
    "dinat",  # wants a package of compiled operators
    "imagegpt",  # takes numbers of colours
    "shieldgemma2",  # a language model
    "siglip2",  # takes patches that were cut before
    "timm_wrapper",  # timm's own
}
_TOWERS = ("clip", "siglip")
"""Image and text encoders whose images are compared with texts."""

_LAYERS = 2
_SIDE = 224
_TEXTS = 5


def names() -> list[str]:
    """Types of models such as ``"vit"``, sorted; none where transformers is missing."""
    try:
        auto = importlib.import_module("transformers.models.auto.modeling_auto")
    except ImportError:
        return []
    classifiers = set(auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES) - _NO_IMAGE_CLASSIFIERS
    return sorted([*classifiers, *(f"{name}-tower" for name in _TOWERS)])


def build(name: str) -> tuple[nn.Module, int]:
    """One of ``names()``: from an image to logits, and the side of its images.

    Raises:
        ModelError: transformers cannot build it.
    """
    transformers = importlib.import_module("transformers")
    try:
        if name.endswith("-tower"):
            return _tower(transformers, name.removesuffix("-tower"))
        config = transformers.AutoConfig.for_model(name)
        _shorten(config)
        auto = importlib.import_module("transformers.models.auto.modeling_auto")
        kinds = auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES[name]
        config.architectures = [kinds] if isinstance(kinds, str) else [*kinds[:1]]
        model = transformers.AutoModelForImageClassification.from_config(config)
    except Exception as error:
        raise ModelError(f"transformers:{name} cannot be built: {error}") from error
    return _Logits(model).eval().requires_grad_(False), _side(config)


def _shorten(config: Any) -> None:
    if isinstance(getattr(config, "image_size", None), int):
        config.image_size = min(config.image_size, _SIDE)
    if hasattr(config, "depths"):
        return  # it has stages, which belong together
    for field in ("num_hidden_layers", "encoder_layers"):
        if isinstance(getattr(config, field, None), int):
            setattr(config, field, min(_LAYERS, getattr(config, field)))


def _side(config: Any) -> int:
    side = getattr(config, "image_size", 224)
    return side if isinstance(side, int) else side[0]


class _Logits(nn.Module):
    """Of a classifier, as a tensor instead of a structure that holds it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(pixel_values=x)
        logits: Tensor = found.logits if "logits" in found else found.last_hidden_state
        return logits


def _tower(transformers: Any, name: str) -> tuple[nn.Module, int]:
    config = transformers.AutoConfig.for_model(name)
    for part in (config.vision_config, config.text_config):
        _shorten(part)
    model = transformers.AutoModel.from_config(config)
    ids = torch.randint(1, 100, (_TEXTS, 7))
    found = model.eval().get_text_features(input_ids=ids)
    texts = getattr(found, "pooler_output", found).detach()
    return _Similarity(model, texts).eval().requires_grad_(False), _side(config.vision_config)


class _Similarity(nn.Module):
    """How well each of some texts fits an image: cosine similarities as logits, (N, texts)."""

    def __init__(self, model: Any, texts: Tensor) -> None:
        super().__init__()
        self.model, self.texts = model, nn.Parameter(nn.functional.normalize(texts, dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        found = self.model.get_image_features(pixel_values=x)
        image = getattr(found, "pooler_output", found)
        return nn.functional.normalize(image, dim=-1) @ self.texts.T
