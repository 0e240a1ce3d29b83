"""The second stage of torchvision's Faster R-CNN as a classifier of one given box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi.errors import InputError


class SecondStage(nn.Module):
    """What the second stage of a detector says of one box.

    Its first stage proposes regions, sorts and suppresses them, by control flow that depends on the
    data. Here the region is given, so that what is left is a network like any other.

    The box's maps are pooled as torchvision does it: the mean of bilinear samples in each of 7 x 7
    bins (RoIAlign: He et al. 2017, "Mask R-CNN"), of the level of the pyramid that fits the box's
    size (Lin et al. 2017, "Feature Pyramid Networks", equation 1).

    Args:
        detector: torchvision's ``FasterRCNN``, or one made of it such as ``MaskRCNN``. Its parts
            are shared.
        box: left, top, right and bottom, in pixels of what ``forward`` gets.

    Raises:
        InputError: the detector has no such stage, or that is no box.
    """

    def __init__(self, detector: Any, box: Sequence[float]) -> None:
        super().__init__()
        if not hasattr(detector, "roi_heads"):
            raise InputError(
                f"{type(detector).__name__} has no second stage (roi_heads): its raw outputs are "
                "those of its backbone and head."
            )
        left, top, right, bottom = box
        if not (left < right and top < bottom):
            raise InputError(f"{tuple(box)} is no box: give left, top, right, bottom.")
        self.backbone, self.heads = detector.backbone, detector.roi_heads
        self.box = (float(left), float(top), float(right), float(bottom))
        self.training = detector.training

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The answer for the box.

        Args:
            x: images, normalised and resized as the detector does it, (N, C, H, W).

        Returns:
            ``cls_logits``: (N, classes), of which 0 is the background; and ``bbox_regression``,
            (N, 4 classes): how the box would be moved if it were of each class.
        """
        found = self.heads.box_head(self._pooled(self.backbone(x), x))
        logits, moves = self.heads.box_predictor(found)
        return {"cls_logits": logits, "bbox_regression": moves}

    def _pooled(self, maps: dict[str, Tensor], x: Tensor) -> Tensor:
        pool = self.heads.box_roi_pool
        levels = [maps[name] for name in pool.featmap_names]
        depths = [round(math.log2(x.shape[2] / level.shape[2])) for level in levels]
        left, top, right, bottom = self.box
        side = math.sqrt((right - left) * (bottom - top))
        depth = math.floor(pool.canonical_level + math.log2(side / pool.canonical_scale) + 1e-6)
        depth = min(max(depth, depths[0]), depths[-1])
        level, times = levels[depth - depths[0]], pool.sampling_ratio
        places = [
            _places(start / 2**depth, end / 2**depth, bins, times, size, x)
            for start, end, bins, size in zip(
                (top, left), (bottom, right), pool.output_size, level.shape[2:], strict=True
            )
        ]
        rows, columns = torch.meshgrid(*places, indexing="ij")
        grid = torch.stack([columns, rows], -1).expand(x.shape[0], -1, -1, -1)
        sampled = F.grid_sample(level, grid, padding_mode="border", align_corners=True)
        return F.avg_pool2d(sampled, times)


def _places(start: float, end: float, bins: int, times: int, size: int, like: Tensor) -> Tensor:
    """Where a map of that many pixels is sampled along an axis; -1 and 1 are its first and last."""
    length = max(end - start, 1.0)
    steps = torch.arange(bins * times, dtype=like.dtype, device=like.device)
    at = start + (steps + 0.5) * (length / (bins * times))
    return 2 * at / max(size - 1, 1) - 1
