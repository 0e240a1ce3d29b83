"""Other attribution methods by name, and controls, on the same networks as ours.

>>> from torchfbi import peers
>>> values = peers.attribute("integrated-gradients", module, x, target)    # (N, C, H, W)
>>> maps = peers.maps("rectgrad", module, x, target)                       # (N, H, W), >= 0

Libraries compute what they compute rightly on every network: Captum the gradients, occlusion and
LIME, pytorch-grad-cam the class activation maps. Where their hooks are silently wrong it is our
own walk, or a few lines on the captured network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchfbi.errors import InputError, NonFiniteError, TargetError
from torchfbi.evaluate.peers.catalogue import METHODS, find
from torchfbi.evaluate.peers.method import Method
from torchfbi.evaluate.peers.network import graph_of
from torchfbi.explanation.predict import graph_now
from torchfbi.method.seeds import as_classes
from torchfbi.method.settings import Settings

__all__ = ["METHODS", "Method", "attribute", "find", "maps", "scores"]


def attribute(
    method: str | Settings | Method,
    module: nn.Module,
    x: Tensor,
    target: Tensor | int,
    seed: int = 0,
) -> Tensor:
    """Attribute the network's answer to its input.

    Args:
        method: as for ``find``.
        module: a classifier in evaluation mode, (N, C, H, W) -> (N, classes); not changed.
        x: images as the network takes them, (N, C, H, W), floating point.
        target: the probed class of each image, (N,) integers, or one for all.
        seed: of what is random (RISE, LIME, the random control). The answer for one image does
            not depend on the rest of its batch.

    Returns:
        Signed, raw values, (N, C, H, W), or (N, 1, H, W) where the method knows no channels; of
        the dtype and on the device of ``x``.

    Raises:
        SettingsError: there is no such method.
        InputError: images of another shape or dtype, or a network that fixes its batch size
            where the method needs other ones. NonFiniteError: NaN or infinity in ``x``.
        TargetError: no such class, or an output other than (N, classes).
        CaptureError: the network cannot be captured, or has no place for this method.
        ModelError: the library behind the method is missing.
    """
    chosen = find(method)
    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(
            f"the images are {x.dtype} {tuple(x.shape)}: peers take floating point (N, C, H, W)."
        )
    if not torch.isfinite(x).all():
        raise NonFiniteError("the input contains NaN or infinite values.")
    if target is None:
        raise TargetError("peers explain a class: give its number, for example logits.argmax(1).")
    if chosen.family != "fbi":  # which hold their answer themselves
        graph_now(module, x)
    classes = graph_of(module, x).logits.meta["val"].shape[1]
    # Gradients, whatever the caller's modes are.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(x.device.type, enabled=False),
    ):
        x = x.detach()
        # Copied: autograd keeps no tensor that was made under inference mode.
        probed = as_classes(target, x.new_empty(len(x), classes)).clone()
        return chosen.attribute(module, x, probed, seed).detach().to(x)


def scores(
    method: str | Settings | Method,
    module: nn.Module,
    x: Tensor,
    target: Tensor | int,
    seed: int = 0,
) -> Tensor:
    """``attribute`` as scores by which pixels are ordered, by the method's own ``reduction``.

    Returns:
        (N, H, W) float32, finite, signed where the method's values are contributions.
    """
    chosen = find(method)
    return chosen.to_scores(attribute(chosen, module, x, target, seed))


def maps(
    method: str | Settings | Method,
    module: nn.Module,
    x: Tensor,
    target: Tensor | int,
    seed: int = 0,
) -> Tensor:
    """``scores`` without what speaks against the class: maps of evidence.

    Returns:
        (N, H, W) float32, >= 0 and finite, larger is more; an all-zero map is valid.
    """
    return scores(method, module, x, target, seed).relu()
