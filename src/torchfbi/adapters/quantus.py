"""An ``explain_func`` for Quantus: give it to any metric that computes explanations itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.settings import Settings


def explain_func(
    model: nn.Module,
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    settings: Settings | str | None = None,
    output: int | str | None = None,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Explain a batch in the form that Quantus asks for.

    >>> metric(model, x_batch, y_batch, explain_func=explain_func,
    ...        explain_func_kwargs={"settings": "paper"})

    Args:
        model: a network of one input in evaluation mode; unchanged.
        inputs: images as the network takes them, (N, C, ...), of any floating-point dtype.
        targets: the probed class of each sample, (N,) integers, or one for all.
        settings: ``Settings``, or the name of a preset; ``"contrast"`` by default.
        output: which output is explained where the network returns several.
        device: where the images go; by default where the network is.

    Returns:
        The attribution summed over the colour channels, (N, 1, ...) float, signed; zero off
        the support. Quantus' own checks refuse a batch in which it is zero everywhere.

    Raises:
        InputError, TargetError, CaptureError, SettingsError: as ``torchfbi.explain``.
    """
    if isinstance(settings, str):
        settings = Settings.from_preset(settings)
    images = torch.as_tensor(np.asarray(inputs))
    weights = next(model.parameters(), images)
    x = images.to(weights.device if device is None else device, weights.dtype)
    classes = torch.as_tensor(np.asarray(targets), device=x.device)
    values, _ = ForwardBackward(model, x, settings, output)(x, classes)
    return values.sum(1, keepdim=True).float().cpu().numpy()
