"""Targets for outputs that are no (N, classes): a region of a dense output, a box, any score.

A target is a class, or a function from the network's output to a seed of its shape. These
make such functions; any other of your own will do as well.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from torchfbi.errors import TargetError
from torchfbi.method.seeds import seed
from torchfbi.method.settings import SeedKind

__all__ = ["against", "box", "overlapping", "region", "score"]


def region(mask: Tensor, channel: int, kind: SeedKind = "contrast") -> Callable[[Tensor], Tensor]:
    """What makes the network say ``channel`` in a region of a dense output (N, classes, H, W)?

    Each pixel of the region is seeded as a classifier's output would be; the rest is zero.

    >>> cat = output.argmax(1) == 8
    >>> explain(segmenter, images, target=region(cat, 8), output="out")

    Args:
        mask: the region, (H, W) for all samples or (N, H, W), bool; or weights of these shapes.
        channel: the probed class.
        kind: the seed at each pixel; ``one-hot`` probes the sum of the class's logits in the
            region, ``contrast`` what speaks for it there against its rivals.

    Raises:
        TargetError: the channel is no whole number, or there is no such kind; when called, if mask
            or channel do not fit the output.
    """

    mask, channel = torch.as_tensor(mask), _a_class(channel, kind)

    def target(output: Tensor) -> Tensor:
        if output.ndim < 3 or mask.shape not in (output.shape[2:], output[:, 0].shape):
            raise TargetError(
                f"the region's mask has shape {tuple(mask.shape)}, but the network's output "
                f"has {tuple(output.shape)}: give a mask (H, W) or (N, H, W) of its size."
            )
        if not 0 <= channel < output.shape[1]:
            raise TargetError(f"there is no channel {channel}: the output has {output.shape[1]}.")
        pixels = output.movedim(1, -1)
        flat = pixels.flatten(0, -2)
        classes = torch.full(flat.shape[:1], channel, device=output.device)
        everywhere = seed(flat, classes, kind).reshape(pixels.shape).movedim(-1, 1)
        weights = mask.to(output)
        return everywhere * (weights if mask.ndim == output.ndim - 2 else weights[:, None])

    return _asking(f"class {channel} in a region", target)


def against(channel: int) -> Callable[[Tensor], Tensor]:
    """What speaks against a class? The negative of its contrast seed: for the answer "no" of a
    network with a single logit, which has no class of its own.

    >>> explain(tumour_or_not, images, target=against(0))

    Args:
        channel: the class, 0 where there is one logit.

    Raises:
        TargetError: the channel is no whole number; when called, if the network has no such class.
    """

    channel = _a_class(channel, "contrast")

    def target(logits: Tensor) -> Tensor:
        if logits.ndim != 2 or not 0 <= channel < logits.shape[1]:
            raise TargetError(
                f"there is no channel {channel}: the output has shape {tuple(logits.shape)}."
            )
        return -seed(logits, torch.full_like(logits[:, 0], channel, dtype=torch.long), "contrast")

    return _asking(f"against class {channel}", target)


def box(
    index: int | Tensor,
    channel: int,
    kind: SeedKind = "contrast",
    *,
    dim: int = -1,
    classes: slice = slice(None),
) -> Callable[[Tensor], Tensor]:
    """What makes a detector say that at one of its candidate boxes?

    It speaks of the raw output of the detector's head, before boxes are suppressed: torchvision's
    single-stage heads return class logits (N, candidates, classes), YOLO's one tensor of
    coordinates and classes.

    >>> which = overlapping(boxes, (30, 20, 90, 80))         # the candidate at a box of yours
    >>> explain(head, images, box(which, 17), output="cls_logits")
    >>> explain(yolo, images, box(which, 4 + 17, dim=1, classes=slice(4, None)))

    Args:
        index: the candidate, or one for each sample, (N,).
        channel: what is asked of it: a class, or, outside of ``classes``, a coordinate.
        kind: how a class is seeded, against its rivals at this candidate; a coordinate is seeded
            alone (``one-hot``).
        dim: which dimension of the output counts classes and coordinates; the other is that of the
            candidates.
        classes: which of the channels are classes.

    Raises:
        TargetError: as for ``region``; when called, if the output has no such candidate or channel.
    """

    channel, index = _a_class(channel, kind), torch.as_tensor(index)
    if index.dtype not in _WHOLE or index.ndim > 1:
        raise TargetError(
            f"the candidate is {index.tolist()}: give its number, or one for each sample, (N,)."
        )

    def target(output: Tensor) -> Tensor:
        of_all = not index.ndim or len(index) in (1, len(output))
        if output.ndim != 3 or dim not in (-2, -1, 1, 2) or not of_all:
            raise TargetError(
                f"the output has shape {tuple(output.shape)}: targets.box needs (N, candidates, "
                "channels), or with dim=1 (N, channels, candidates), and one candidate for all "
                "samples or for each."
            )
        rows = output.movedim(dim, -1)
        samples, candidates, channels = rows.shape
        chosen = index.to(output.device, torch.long).expand(samples)
        if not 0 <= channel < channels or ((chosen < 0) | (chosen >= candidates)).any():
            raise TargetError(
                f"there is no channel {channel} of candidate {index.tolist()}: the output has "
                f"{channels} channels of {candidates} candidates."
            )
        every = torch.arange(samples, device=output.device)
        asked = torch.zeros_like(rows)
        of_classes = range(*classes.indices(channels))
        if channel in of_classes:
            number = torch.full((samples,), of_classes.index(channel), device=output.device)
            asked[every, chosen, classes] = seed(rows[every, chosen, classes], number, kind)
        else:
            asked[every, chosen, channel] = 1.0
        return asked.movedim(-1, dim)

    where = int(index) if index.numel() == 1 else "of each image"
    return _asking(f"channel {channel} at candidate {where}", target)


def overlapping(boxes: Tensor, wanted: Sequence[float] | Tensor) -> Tensor:
    """The candidate that covers a box best: intersection over union.

    Args:
        boxes: left, top, right and bottom of each candidate, (candidates, 4), or (N, candidates, 4)
            where they differ between samples.
        wanted: left, top, right and bottom.

    Returns:
        Its index, () or (N,) int64, as ``box`` takes it.

    Raises:
        TargetError: ``boxes`` or ``wanted`` are no boxes, or none overlaps.
    """
    boxes = boxes.double()  # in half precision an area is soon infinite
    wanted = torch.as_tensor(wanted, dtype=boxes.dtype, device=boxes.device)
    if boxes.shape[-1] != 4 or boxes.ndim not in (2, 3) or wanted.shape != (4,):
        raise TargetError(
            f"boxes of shape {tuple(boxes.shape)} and one of {tuple(wanted.shape)}: give "
            "(candidates, 4) or (N, candidates, 4), and left, top, right, bottom."
        )
    shared = torch.minimum(boxes, wanted)[..., 2:] - torch.maximum(boxes, wanted)[..., :2]
    shared = shared.clamp(min=0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) for b in (boxes, wanted)]
    covered = torch.where(shared > 0, shared / (areas[0] + areas[1] - shared), 0.0)
    if not (covered.amax(-1) > 0).all():
        raise TargetError(f"no candidate overlaps the box {wanted.tolist()}.")
    return covered.argmax(-1)


def score(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What makes a score of the output large? Its seed is its gradient at the output.

    A score that is one logit of each sample asks for that class: it is probed as every class,
    by ``settings.seed``.

    >>> explain(model, images, target=score(lambda logits: logits[:, 3] - logits[:, 7]))

    Args:
        function: from what the network returns, (N, ...), to a number, or to several that are
            summed; differentiable. A softmax or sigmoid at the network's end is seen here,
            although classes are asked about the logits before it.

    Raises:
        TargetError: when called, if the score has no gradient.
    """

    def target(output: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            probe = output.clone().requires_grad_()
            value: Any = function(probe.clone())  # it may write to what it is given
            gradient = None
            if isinstance(value, Tensor) and value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), probe, allow_unused=True)
            if gradient is None:
                raise TargetError("the score does not depend differentiably on the output.")
        if gradient.ndim == 2 and _is_one_hot(gradient):
            return gradient.argmax(1)
        return gradient

    target.sees_output = True  # type: ignore[attr-defined]
    return _asking("a score of the output", target)


def _asking(question: str, target: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """With what is asked in words, for ``Explanation.title``."""
    target.question = question  # type: ignore[attr-defined]
    return target


_WHOLE = {torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8}


def _a_class(channel: Any, kind: str) -> int:
    """The number of a channel, where it is one and there is such a kind of seed."""
    if isinstance(channel, bool) or not hasattr(channel, "__index__"):
        raise TargetError(f"the channel is {channel!r:.80}: give its number, a whole one.")
    if kind not in get_args(SeedKind):
        raise TargetError(f"kind is {kind!r}: choose {', '.join(get_args(SeedKind))}.")
    return operator.index(channel)


def _is_one_hot(rows: Tensor) -> bool:
    return bool((rows.amax(1) == 1).all() and ((rows != 0).sum(1) == 1).all())
