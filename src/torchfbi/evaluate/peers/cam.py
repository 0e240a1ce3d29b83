"""Class activation maps, computed by pytorch-grad-cam at the walk's own top layer.

That layer is found in the captured graph, so that it need not be a module of the user's. The
library's own output is cut off at its minimum and scaled for display; here is what lies before.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchfbi.errors import needs
from torchfbi.evaluate.peers.method import Attribute
from torchfbi.evaluate.peers.network import Operator, graph_of, to_image, top_layer
from torchfbi.evaluate.peers.own import GUIDED_BACKPROP, walk
from torchfbi.explanation.predict import executable
from torchfbi.method.maps import channel_dim
from torchfbi.models.torchvision import import_torchvision
from torchfbi.system.quiet import quiet

SCORE_CHUNK = 32
"""Masked images in one forward pass of Score-CAM."""


def cam(kind: str) -> Attribute:
    """A class activation map: the weighted sum of the top layer's maps, rectified and upsampled.

    Args:
        kind: one of pytorch-grad-cam's classes: ``GradCAM``, ``GradCAMPlusPlus``, ``LayerCAM``,
            ``ScoreCAM`` (one forward pass for each map of the layer), or ``FinerCAM``: Grad-CAM of
            the class's logit less those of the three nearest to it.

    Returns:
        A method that gives (N, 1, H, W), >= 0; a CaptureError where no layer has maps, and a
        ModelError where pytorch-grad-cam is missing.
    """

    def attribute(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
        library = _pytorch_grad_cam()
        graph = graph_of(module, x, any_batch=kind == "ScoreCAM")
        node = top_layer(graph)
        top, channel = Operator(cast(Any, node.target)), channel_dim(node)
        network = executable(graph, {node: top})
        # Score-CAM masks the image in float32, whatever the network's dtype.
        network.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(x.dtype),))
        finer = kind == "FinerCAM"
        base = getattr(library, "GradCAM" if finer else kind)
        method = base(network, [top], lambda maps: maps.movedim(channel, 1))
        method.batch_size = SCORE_CHUNK
        maps = _maps(method, x, target, _against_the_nearest if finer else operator.itemgetter)
        return to_image(maps.to(x).relu(), x)

    return attribute


def _against_the_nearest(number: int) -> Callable[[Tensor], Tensor]:
    """Finer-CAM's target, as the library's own ``FinerCAM`` makes it."""
    finer_cam = importlib.import_module("pytorch_grad_cam.finer_cam")

    def score(logits: Tensor) -> Tensor:
        nearest = (logits - logits[number]).detach().abs().argsort(stable=True).tolist()
        others = [i for i in nearest if i != number][: len(finer_cam.DEFAULT_COMPARISON_CATEGORIES)]
        difference = finer_cam.FinerWeightedTarget(number, others, 1)
        return cast(Tensor, difference(logits))

    return score


def _maps(
    method: Any, x: Tensor, target: Tensor, score: Callable[[int], Callable[[Tensor], Tensor]]
) -> Tensor:
    """The library's maps at the size of the layer, (N, h, w), before ReLU and scaling."""
    seen = method.activations_and_grads
    logits = seen(x.clone().requires_grad_())
    scores = [score(n)(z) for n, z in zip(target.tolist(), logits, strict=True)]
    torch.autograd.backward(torch.stack(scores).sum())
    activations, gradients = (
        tensors[0].to(torch.promote_types(x.dtype, torch.float32)).numpy()
        for tensors in (seen.activations, seen.gradients)
    )
    seen.release()  # else Score-CAM's many forward passes would all be kept
    maps = []
    with quiet("stderr", warn=True):  # Score-CAM draws a progress bar
        for i, number in enumerate(target.tolist()):
            one = slice(i, i + 1)
            found = method.get_cam_image(
                x[one], None, [score(number)], activations[one], gradients[one], False
            )
            maps.append(torch.from_numpy(found))
    return torch.cat(maps)


def guided_grad_cam(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """Guided backprop times Grad-CAM (Selvaraju et al. 2017, section 3.1), (N, C, H, W)."""
    guided = walk(GUIDED_BACKPROP)(module, x, target, seed)
    return guided * cam("GradCAM")(module, x, target, seed)


def _pytorch_grad_cam() -> Any:
    import_torchvision()  # the library imports it, and may need its operators declared
    with needs("torchfbi[gradcam]"):
        return importlib.import_module("pytorch_grad_cam")
