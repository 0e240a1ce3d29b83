"""Does the map depend on what it claims to explain: the class, the weights, and not on noise?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from torchfbi.errors import InputError, SettingsError
from torchfbi.metrics.checks import checked_maps
from torchfbi.metrics.ranks import spearman


def class_correlation(maps_a: Tensor, maps_b: Tensor) -> Tensor:
    """Spearman's rank correlation over the pixels, tied pixels sharing their mean rank.

    Signed maps are compared with their signs: magnitudes do not see that what speaks for one class
    speaks against the other.

    Between the maps of the target and of a random other class: the random logit test of Sixt et
    al. 2020. Between the maps of a network and of its randomised copy: the model
    parameter randomisation test of Adebayo et al. 2018. Near zero or below is good.

    Args:
        maps_a, maps_b: (N, H, W), signed or not.

    Returns:
        (N,) float64 in [-1, 1], NaN where either map is constant, as an empty one is.

    Raises:
        InputError: maps of another shape or with values that no map has.
    """
    a = checked_maps(maps_a, signed=True)
    b = checked_maps(maps_b, len(maps_a), signed=True)
    if a.shape != b.shape:
        raise InputError(f"the maps have shapes {tuple(a.shape)} and {tuple(b.shape)}.")
    return spearman(a.flatten(1), b.flatten(1))


def cascade(module: nn.Module, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a network with more and more layers randomised, from the top down.

    The cascading randomisation of Adebayo et al. 2018. A layer is a module with
    parameters of its own, batch norms among them, and the top is what the network registered
    last. Every parameter is drawn anew from the normal distribution with the mean and the
    standard deviation of its values: nothing that was learnt stays but the scale. (With PyTorch's
    own initial values the signal dies in deep networks: the gradient of EfficientNet-Lite0 falls
    to 1e-12, and the test would measure rounding.) Buffers such as running statistics stay.

    Args:
        module: unchanged.
        seed: of the new values.

    Yields:
        The name of the layer that was randomised last, as in ``named_modules``, and a copy of the
        module in which it and all layers above it are random. Copies are independent.
    """
    generator = torch.Generator().manual_seed(seed)
    current = copy.deepcopy(module)
    for name, layer in reversed(list(current.named_modules())):
        parameters = list(layer.parameters(recurse=False))
        for parameter in parameters:
            _redraw(parameter, generator)
        if parameters:
            yield name, copy.deepcopy(current)


def randomise_head(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of the network whose last layer alone is random: the first of ``cascade``.

    Raises:
        InputError: the module has no parameters.
    """
    for _, randomised in cascade(module, seed):
        return randomised
    raise InputError("the module has no parameters: there is nothing to randomise.")


def max_sensitivity(
    attribute: Callable[[Tensor], Tensor],
    x: Tensor,
    maps: Tensor,
    *,
    radius: float = 0.02,
    samples: int = 10,
    seed: int = 0,
) -> Tensor:
    """How far the map moves when the image hardly does.

    Yeh et al. 2019: the largest ||attribute(y) - maps|| over images y
    that are nowhere further than ``radius`` from x, here over ``samples`` random ones; relative
    to ||maps||, as Captum and Quantus measure it. Low is good. Costs ``samples`` attributions.

    Args:
        attribute: from images (N, C, H, W) to their maps (N, H, W), for fixed targets.
        x: (N, C, H, W) float.
        maps: ``attribute(x)``.
        radius: the largest change of a value, in units of ``x``.
        samples: how many changed images.
        seed: of the changes, which are uniform, and the same for all images of the batch.

    Returns:
        (N,) float64, >= 0; NaN where the map is empty.

    Raises:
        InputError: maps of another shape or with values that no map has.
        SettingsError: a radius or a number of samples that is not positive.
    """
    if not (radius > 0 and samples >= 1):
        raise SettingsError(f"radius={radius}, samples={samples}: both must be positive.")
    values = checked_maps(maps, len(x)).flatten(1)
    generator = torch.Generator().manual_seed(seed)
    largest = values.new_zeros(len(values))
    for _ in range(samples):
        change = radius * (2 * torch.rand(x.shape[1:], generator=generator) - 1)
        moved = checked_maps(attribute(x + change.to(x)), len(x)).flatten(1)
        largest = largest.maximum((moved - values).norm(dim=1))
    return largest / torch.where(values.any(1), values.norm(dim=1), torch.nan)


def _redraw(parameter: nn.Parameter, generator: torch.Generator) -> None:
    old = parameter.detach().cpu().double()
    new = torch.randn(old.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        parameter.copy_(old.mean() + old.std(correction=0) * new)
