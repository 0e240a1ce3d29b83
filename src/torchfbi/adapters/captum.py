"""An attribution method for Captum: use it wherever Captum takes one of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from torchfbi import targets
from torchfbi.errors import InputError, TargetError, needs
from torchfbi.explanation import forward_backward as walk
from torchfbi.method.settings import Settings

with needs("captum"):
    from captum._utils.common import _select_targets  # type: ignore[import-untyped]
    from captum.attr import Attribution, visualization  # type: ignore[import-untyped]
    from captum.log import log_usage  # type: ignore[import-untyped]

CaptumTarget = int | tuple[int, ...] | list[int] | list[tuple[int, ...]] | Tensor | None


class ForwardBackward(Attribution):  # type: ignore[misc]  # Captum has no types
    """Forward-backward interpretability as a Captum ``Attribution``.

    >>> fbi = ForwardBackward(model)
    >>> values = fbi.attribute(images, target=3)
    >>> smooth = NoiseTunnel(fbi).attribute(images, target=3, nt_samples=8, stdevs=0.1)

    Args:
        forward_func: a network of one input in evaluation mode; unchanged. It is captured at
            the first call for an image size, which takes seconds; later calls pay nothing.
        settings: the method's knobs; ``Settings.contrast()`` by default.
        output: which output is explained where the network returns several.
    """

    def __init__(
        self,
        forward_func: nn.Module,
        settings: Settings | None = None,
        output: int | str | None = None,
    ) -> None:
        super().__init__(forward_func)
        self.settings = settings if settings is not None else Settings.contrast()
        self.output = output

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the values are contributions, as evidence is, and no signal."""
        return self.settings.values == "evidence"

    @log_usage()  # type: ignore[untyped-decorator]  # Captum's NoiseTunnel needs its __wrapped__
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: CaptumTarget | Callable[[Tensor], Tensor] = None,
        additional_forward_args: None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """The attribution, shaped like the input; a signal is zero off its support.

        Args:
            inputs: images as the network takes them, (N, C, ...), floating point; or a tuple of
                one such tensor.
            target: what is probed, as in Captum: an integer for all samples; a list or tensor
                (N,) of integers; for outputs of more than two dimensions a tuple such as
                (class, y, x), or a list of N of them; None only if the network has one output
                for each sample. Or a function from the output to a seed, as in ``explain``.
            additional_forward_args: only None; it is here because Captum's methods have it.

        Returns:
            A tensor of the input's shape, dtype and device; a tuple if ``inputs`` is one.

        Raises:
            InputError: several inputs, further arguments, or images that do not fit.
            TargetError: no such output, or not one for each sample.
            CaptureError: see ``torchfbi.capture.capture``.
        """
        images = inputs if isinstance(inputs, tuple) else (inputs,)
        if len(images) != 1 or additional_forward_args is not None:
            raise InputError(
                "torchfbi explains networks of one input, without additional_forward_args: wrap "
                "the network in a module that holds the other arguments."
            )
        (x,) = images
        fbi = walk.ForwardBackward(self.forward_func, x, self.settings, self.output)
        values, _ = fbi(x, target if callable(target) else _picked(target))
        return (values,) if isinstance(inputs, tuple) else values


def _picked(target: CaptumTarget) -> Callable[[Tensor], Tensor]:
    """The output that Captum's rules pick for each sample."""

    def pick(output: Tensor) -> Tensor:
        try:
            picked = _select_targets(output, target)
        except (AssertionError, IndexError, RuntimeError) as error:
            raise TargetError(
                f"target {target!r} picks nothing from an output of shape "
                f"{tuple(output.shape)}: {error}"
            ) from None
        if picked.numel() != len(output):
            raise TargetError(
                f"target {target!r} picks {tuple(picked.shape)} from an output of shape "
                f"{tuple(output.shape)}, not one number for each sample: give the class, or a "
                "tuple such as (class, y, x). Captum has no default; the top class of each "
                "sample is target=model(inputs).argmax(1)."
            )
        return picked

    return targets.score(pick)


def visualize_image_attr(
    attr: np.ndarray,
    original_image: np.ndarray | None = None,
    method: str = "heat_map",
    sign: str = "absolute_value",
    *,
    title: str | None = None,
    **options: Any,
) -> Any:
    """``captum.attr.visualization.visualize_image_attr``, also where there is nothing to show.

    Captum's own stops with an AssertionError where an attribution has no value of ``sign``. Here
    the original image (grey if there is none) appears, and the title says that it is empty.

    Args:
        attr: the attribution of one image, (H, W, C) or (H, W).
        original_image: (H, W, C), float in [0, 1] or integer in [0, 255].
        method, sign, title, options: as in Captum's.

    Returns:
        Figure and axes.
    """
    total = attr.sum(2) if attr.ndim == 3 else attr
    shown = {"positive": total > 0, "negative": total < 0}.get(sign, total != 0)
    if not shown.any():
        if original_image is None:
            original_image = np.full((*total.shape, 3), 0.5)
        attr, sign = np.ones_like(attr), "all"  # scaled though not drawn
        method = "original_image"
        title = "empty support" if title is None else f"{title}: empty support"
    return visualization.visualize_image_attr(
        attr, original_image, method, sign, title=title, **options
    )
