"""A drop-in for code that was written around pytorch-grad-cam's class activation maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfbi import targets as seeds
from torchfbi.api import explain
from torchfbi.errors import SettingsError, TargetError
from torchfbi.method.settings import Settings

OutputTarget = Callable[[Tensor], Tensor]

# Below this nothing speaks for the target: a quarter of a step of an 8-bit picture.
FLOOR = 1e-3


class FBICAM:
    """Forward-backward interpretability where pytorch-grad-cam's ``GradCAM`` stood.

    >>> with FBICAM(model) as cam:
    ...     grayscale = cam(input_tensor, [ClassifierOutputTarget(281)])

    Args:
        model: a network of one input in evaluation mode; unchanged: there are no hooks.
        target_layers: what other CAMs hang their hooks on; taken so that calls need no edit,
            and not used, since the walk goes through all layers.
        settings: the method's knobs, or the name of a preset; ``"contrast"`` by default.
        output: which output is explained where the network returns several.

    After a call ``outputs`` holds the network's outputs, before a final softmax.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module] | None = None,
        *,
        settings: Settings | str | None = None,
        output: int | str | None = None,
    ) -> None:
        self.model, self.settings, self.output = model, settings, output
        self.outputs: Tensor | None = None

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[OutputTarget] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> np.ndarray:
        """The magnitude of the attribution of each image.

        Args:
            input_tensor: images as the network takes them, (N, C, H, W); moved to its device.
            targets: for each sample a function from its output to a score, such as a
                ``ClassifierOutputTarget`` or a ``SemanticSegmentationTarget``; None for the
                top class. One that picks a class is probed by ``settings.seed``, any other by
                its gradient; so are all samples of a batch that holds both.
            aug_smooth: average over the image and its mirror image, each times 0.9, 1 and 1.1.
            eigen_smooth: only False: there are no maps of one layer to take a component of.

        Returns:
            (N, H, W) float32 in [0, 1]. Above 0.001 it is what speaks for the target, see
            ``Explanation.to_heatmap``; below, the other pixels are ranked by how near to
            those they lie, because metrics such as ROAD remove pixels in this order, and
            pixels of equal value all at once. All are zero where nothing speaks for it.

        Raises:
            SettingsError: ``eigen_smooth``, or ``aug_smooth`` of a dense output.
            InputError, TargetError, CaptureError: as ``torchfbi.explain``.
        """
        if eigen_smooth:
            raise SettingsError(
                "eigen_smooth takes the first component of one layer's weighted maps; this "
                "attribution is made at the image, not from such maps. Use aug_smooth."
            )
        x = input_tensor.to(next(self.model.parameters(), input_tensor).device)
        target: Any = None if targets is None else _as_target(targets, len(x))
        found = explain(self.model, x, target, self.settings, output=self.output)
        self.outputs, heat = found.logits, found.to_heatmap().float()
        if aug_smooth:
            if found.logits.ndim != 2:
                raise SettingsError(
                    "aug_smooth mirrors the image, but the target's region in the dense output "
                    "would stay where it is: use aug_smooth=False."
                )
            classes = target if found.target is None else found.target
            heat = (heat + sum(self._views(x, classes))) / 6
        return _ranked(heat).cpu().numpy()

    def _views(self, x: Tensor, target: Any) -> list[Tensor]:
        """The maps of the other five views of the images, laid back onto them."""
        maps = []
        for mirrored in (False, True):
            for factor in (0.9, 1.0, 1.1):
                if mirrored or factor != 1.0:
                    view = factor * (x.flip(-1) if mirrored else x)
                    found = explain(self.model, view, target, self.settings, output=self.output)
                    heat = found.to_heatmap().float()
                    maps.append(heat.flip(-1) if mirrored else heat)
        return maps

    def __enter__(self) -> FBICAM:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is left on the model that would have to be released."""


def _as_target(targets: Sequence[OutputTarget], samples: int) -> Callable[[Tensor], Tensor]:
    if len(targets) != samples or not all(callable(target) for target in targets):
        raise TargetError(
            f"targets must hold one function from the output to a score for each of the "
            f"{samples} samples, such as ClassifierOutputTarget(281)."
        )

    def scores(output: Tensor) -> Tensor:
        pairs = zip(targets, output, strict=True)
        return torch.stack([target(one).sum() for target, one in pairs])

    return seeds.score(scores)


def _ranked(heat: Tensor) -> Tensor:
    """Every pixel that is zero gets a rank instead: what lies nearer counts more."""
    nearness = _nearness(heat)
    largest = nearness.flatten(1).amax(1).clamp(min=torch.finfo(heat.dtype).tiny)
    outside = nearness / largest.reshape([-1] + [1] * (heat.ndim - 1))
    return torch.where(heat > 0, FLOOR + (1 - FLOOR) * heat, FLOOR * outside)


def _nearness(heat: Tensor) -> Tensor:
    """At each position the sum of ``heat`` over 1 + squared distance, by Fourier transform."""
    sizes, dims = heat.shape[1:], tuple(range(1, heat.ndim))
    padded = [2 * size for size in sizes]
    steps = [torch.arange(size, device=heat.device).double() for size in padded]
    nearest = [torch.minimum(step, len(step) - step) for step in steps]  # around the corner
    squared = sum(axis**2 for axis in torch.meshgrid(*nearest, indexing="ij"))
    kernel = torch.fft.rfftn(1 / (1 + squared))
    spread = torch.fft.irfftn(torch.fft.rfftn(heat.double(), padded, dims) * kernel, padded, dims)
    for dim, size in zip(dims, sizes, strict=True):
        spread = spread.narrow(dim, 0, size)
    return spread.clamp(min=0).to(heat)
