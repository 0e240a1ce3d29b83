"""Networks of your own: a function in a Python file, which is of course run; and any module."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchfbi.capture.own import plain
from torchfbi.errors import ModelError, first_line
from torchfbi.models.labels import Labels
from torchfbi.models.model import Assumed, Model
from torchfbi.models.preprocess import Preprocess
from torchfbi.models.torchvision import import_torchvision

IMAGENET = Preprocess(resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What most networks were trained with; taken where nothing else is known."""

EVERYTHING: Assumed = ("mean", "std", "framing")


def from_function(place: str) -> Model:
    """The network that a function in a Python file returns.

    Args:
        place: ``"path/to/file.py:function"``. The function takes no arguments and returns an
            ``nn.Module``, or a ``Model`` that also brings preprocessing and labels.

    Raises:
        ModelError: the file or function is missing, fails, or returns something else.
    """
    file, _, name = place.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where torchvision is not made for this PyTorch, the file's own import of it would fail, and
    # timm's.
    code = path.read_text("utf-8", "replace")
    if "torchvision" in code or "timm" in code:
        import_torchvision()
    try:
        spec.loader.exec_module(module)
        made = getattr(module, name)()
    except Exception as error:
        raise ModelError(f"{place} failed: {type(error).__name__}: {error}") from error
    if isinstance(made, Model):
        return made
    if not isinstance(made, nn.Module):
        raise ModelError(f"{place} returned a {type(made).__name__}, not an nn.Module or a Model.")
    return wrap(made.eval(), place, assumed=EVERYTHING)


def wrap(
    module: nn.Module,
    name: str,
    preprocess: Preprocess = IMAGENET,
    batch: int = 1,
    assumed: Assumed = (),
) -> Model:
    """A network of unknown labels: its classes are counted by running it once on a blank image.

    Raises:
        ModelError: it does not take such an image.
    """
    blank = torch.zeros(batch, len(preprocess.mean), *preprocess.size)
    blank = blank.to(next(module.parameters(), blank))
    try:
        with torch.no_grad():
            outputs = pytree.tree_leaves(plain(module(blank)))
    except Exception as error:
        happened = first_line(error).rstrip(".")
        raise ModelError(
            f"{name} does not take an image of {tuple(blank.shape)}: {happened}. What a "
            "network takes is said by a torchfbi.Model: return torchfbi.Model(network, "
            "torchfbi.Preprocess(resize, crop, mean, std), torchfbi.Labels(names)) from a function."
        ) from error
    scores = [out for out in outputs if isinstance(out, Tensor) and out.ndim > 0]
    if not scores:
        raise ModelError(f"{name} returns no tensor (N, classes).")
    classes = scores[0].shape[1] if scores[0].ndim > 1 else 1  # one number an image
    return Model(module, preprocess, Labels.numbered(classes), name, assumed)
