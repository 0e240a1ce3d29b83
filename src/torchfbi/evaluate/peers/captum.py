"""Peers computed by Captum, on the captured network.

Gradients are taken of the logit; what is altered and looked at again is judged by the class's
probability, as in the papers. Where a method needs an image without information, it is 0 in the
network's own units, the mean colour.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torchfbi.errors import needs
from torchfbi.evaluate.peers.network import logits_of, probabilities_of
from torchfbi.system.quiet import quiet

STEPS = 50
"""Points on the path of integrated gradients (section 5 of its paper: 20 to 300 suffice)."""

DRAWS, NOISE = 25, 0.15
"""SmoothGrad: noisy copies, of which the paper takes 50, and the noise as a share of the values'
range (section 3.2: 10 to 20 %)."""

WINDOWS = 7
"""Occlusion: how many windows fit along a side; they move by half their size."""

PATCHES, SAMPLES = 8, 500
"""LIME: square patches along a side, and samples."""

KERNEL_WIDTH, RIDGE = 0.25, 1.0
"""LIME: the width of its kernel on cosine distances and its ridge regression's penalty, those of
the authors' own image code."""

CHUNK = 32
"""Altered images in one forward pass."""


def gradient(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """The gradient of the class's logit, (N, C, H, W)."""
    saliency = _captum().Saliency(logits_of(module, x))
    values: Tensor = saliency.attribute(x.clone().requires_grad_(), target, abs=False)
    return values


def input_x_gradient(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """``gradient`` times the image, (N, C, H, W)."""
    method = _captum().InputXGradient(logits_of(module, x))
    values: Tensor = method.attribute(x.clone().requires_grad_(), target)
    return values.detach()


def integrated_gradients(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """The mean gradient on the straight path from the mean colour, times the image.

    The values (N, C, H, W) add up to the difference of the logits at the path's ends, as far as
    ``STEPS`` points of Gauss-Legendre quadrature allow.
    """
    method = _captum().IntegratedGradients(logits_of(module, x, any_batch=True))
    values: Tensor = method.attribute(
        x.clone().requires_grad_(),
        target=target,
        n_steps=STEPS,
        internal_batch_size=max(CHUNK, len(x)),
    )
    return values.detach()


def smoothgrad_squared(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """The mean square of the gradient over noisy copies of the image, (N, C, H, W), >= 0.

    The noise's standard deviation is ``NOISE`` times the range of the image's values. Every image
    of a batch meets the same draws.
    """
    library, network = _captum(), logits_of(module, x, any_batch=True)
    # The noise is drawn in float32, whatever the network's dtype.
    method = library.NoiseTunnel(library.Saliency(lambda noisy: network(noisy.to(x.dtype))))
    values = []
    for image, number in zip(torch.split(x, 1), target.tolist(), strict=True):
        with quiet(), torch.random.fork_rng(devices=[]):  # the process has but one state
            torch.manual_seed(seed)
            values.append(
                method.attribute(
                    image.clone().requires_grad_(),
                    nt_type="smoothgrad_sq",
                    nt_samples=DRAWS,
                    nt_samples_batch_size=DRAWS,
                    stdevs=NOISE * (image.max() - image.min()).item(),
                    target=number,
                    abs=False,
                ).detach()
            )
    return torch.cat(values)


def occlusion(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """How much probability is lost with a square window around each pixel, (N, 1, H, W).

    The mean over all windows that hold the pixel.
    """
    method = _captum().Occlusion(probabilities_of(module, x))
    side = max(1, min(x.shape[-2:]) // WINDOWS)
    step = max(1, side // 2)
    values: Tensor = method.attribute(
        x,
        sliding_window_shapes=(x.shape[1], side, side),
        strides=(x.shape[1], step, step),
        target=target,
        perturbations_per_eval=max(1, CHUNK // len(x)),
    )
    return values[:, :1]


def lime(
    module: nn.Module, x: Tensor, target: Tensor, seed: int = 0, *, samples: int = SAMPLES
) -> Tensor:
    """The weights of a linear model of the probability near the image, (N, 1, H, W).

    Its features are square patches, present or 0. Every image meets the same draws.
    """
    library, probabilities, patches = _captum(), probabilities_of(module, x), _patches(x)
    values = []
    for image, number in zip(torch.split(x, 1), target.tolist(), strict=True):
        method = library.Lime(
            probabilities,
            interpretable_model=_Ridge(),
            similarity_func=_similarity,
            perturb_func=_draws(int(patches.max()) + 1, seed),
        )
        found = method.attribute(
            image,
            target=number,
            feature_mask=patches,
            n_samples=samples,
            perturbations_per_eval=CHUNK,
        )
        values.append(found[:, :1])
    return torch.cat(values)


def _draws(count: int, seed: int) -> Callable[..., Tensor]:
    """Which of ``count`` patches are present, (1, count), each with probability one half."""
    generator = torch.Generator().manual_seed(seed)

    def draw(original: Tensor, **_: Any) -> Tensor:
        return torch.randint(2, (1, count), generator=generator).to(original.device)

    return draw


def _patches(x: Tensor) -> Tensor:
    """Which patch each pixel lies in, numbered from 0, (1, C, H, W) int64."""
    rows, columns = (torch.arange(size) // -(-size // PATCHES) for size in x.shape[-2:])
    numbers = rows[:, None] * (int(columns.max()) + 1) + columns
    return numbers.to(x.device).expand(1, *x.shape[1:])


def _similarity(original: Tensor, altered: Tensor, present: Tensor, **_: Any) -> Tensor:
    """An exponential kernel on the cosine distance of the patches present from all of them."""
    share = present.float().mean(1)
    return torch.exp(-((1 - share.sqrt()) ** 2) / KERNEL_WIDTH**2).sqrt()


class _Ridge:
    """Weighted ridge regression in the form that Captum asks of an interpretable model."""

    def fit(self, train_data: Any, **_: Any) -> None:
        """Fit features (M, F), answers (M,) and weights (M,), with an intercept."""
        z, y, w = (tensor.double() for tensor in train_data.dataset.tensors)
        w = w[:, None]
        z, y = z - (w * z).sum(0) / w.sum(), y[:, None] - (w * y[:, None]).sum() / w.sum()
        penalty = RIDGE * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        self.weights = torch.linalg.solve(z.T @ (w * z) + penalty, z.T @ (w * y))

    def representation(self) -> Tensor:
        """The weight of each feature, (1, F)."""
        return self.weights.T


def _captum() -> Any:
    with needs("torchfbi[captum]"):
        return importlib.import_module("captum.attr")
