"""What takes the place of removed pixels: their blur, the mean colour, or what lies around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from torchfbi.errors import SettingsError
from torchfbi.metrics.imputation import impute
from torchfbi.verification.blur import blur

Kind: TypeAlias = Literal["blur", "mean", "road"]
"""``blur``: the image after a Gaussian blur of ``SIGMA``, which leaves the colours and no class.
``mean``: the image's mean colour. ``road``: noisy linear imputation from the pixels that are left
(Rong et al. 2022, remove and debias), so that the shape of the holes tells nothing; where nothing
is left it is the mean colour."""

Remove: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""From numbers of samples, int64 (M,), and holes, bool (M, H, W), to images (M, C, H, W)."""

SIGMA, SIGMA_AT = 10, 224
"""Standard deviation of the blur in pixels, on an image whose shorter side is that long; in
proportion on others."""

NOISE = 0.01
"""Standard deviation of the noise on imputed pixels, in units of the network's input; Rong et al.'s
own code."""


def removal(x: Tensor, kind: Kind = "blur", seed: int = 0) -> Remove:
    """How pixels of these images are removed.

    What does not depend on the holes is computed here, once for all maps that are judged.

    Args:
        x: (N, C, H, W) float.
        kind: what takes the place of removed pixels.
        seed: of the noise of ``road``, which is the same field for all images.

    Returns:
        a function of samples and holes; see ``Remove``.

    Raises:
        SettingsError: no such kind.
    """
    x = x.detach()
    colour = x.mean((2, 3), keepdim=True).expand_as(x)
    if kind == "blur":
        return _replaced(x, blur(x, SIGMA * min(x.shape[2:]) / SIGMA_AT))
    if kind == "mean":
        return _replaced(x, colour)
    if kind != "road":
        raise SettingsError(f"unknown removal {kind!r}: it is 'blur', 'mean' or 'road'.")
    generator = torch.Generator().manual_seed(seed)
    noise = NOISE * torch.randn(x.shape[1:], generator=generator).to(x)

    def remove(samples: Tensor, holes: Tensor) -> Tensor:
        samples, holes = samples.to(x.device), holes.to(x.device)
        nothing = holes.flatten(1).all(1)[:, None, None]
        filled = impute(x[samples], holes & ~nothing)
        filled = torch.where(nothing[:, None], colour[samples], filled)
        return filled + holes[:, None] * noise

    return remove


def _replaced(x: Tensor, other: Tensor) -> Remove:
    def remove(samples: Tensor, holes: Tensor) -> Tensor:
        samples, holes = samples.to(x.device), holes.to(x.device)
        return torch.where(holes[:, None], other[samples], x[samples])

    return remove
