"""One of torchvision's detectors of one stage as a classifier of one given box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfbi.errors import InputError
from torchfbi.models.torchvision import import_torchvision

NEAR = 0.9
"""Of the largest overlap: boxes are written down in whole pixels, and neighbouring candidates are
nearly the same. The surest of them is what suppression has left."""


class OneStage(nn.Module):
    """What a detector of one stage says of one box: the scores of the candidate it came from.

    Which candidate that is depends on the image; once the detector has answered, it is known, and
    a network like any other is left.

    Args:
        detector: torchvision's ``RetinaNet``, ``FCOS``, ``SSD`` or SSDLite. Its parts are shared.
        image: in which the box was found, normalised and resized as the detector does it,
            (1, C, H, W).
        box: left, top, right and bottom, in pixels of ``image``.

    Raises:
        InputError: it is no such detector, or none of its candidates overlaps the box.
    """

    def __init__(self, detector: Any, image: Tensor, box: Sequence[float]) -> None:
        super().__init__()
        for part in ("backbone", "head", "anchor_generator", "box_coder"):
            if not hasattr(detector, part):
                kind = type(detector).__name__
                raise InputError(f"{kind} is no detector of one stage: it has no {part}.")
        self.backbone, self.head = detector.backbone, detector.head
        self.training = detector.training
        # SSD's scores are shares of all classes, of which 0 is the background; those of the others
        # are of each class alone.
        self.shares = any(kind.__name__ == "SSD" for kind in type(detector).__mro__)
        with torch.no_grad():
            boxes, found = _candidates(detector, image)
            wanted = torch.as_tensor(box, dtype=boxes.dtype, device=boxes.device)
            overlap = import_torchvision().ops.box_iou(boxes, wanted[None])[:, 0]
            if not overlap.max() > 0:
                raise InputError(f"no candidate of the detector overlaps the box {[*box]}.")
            sure = self._scores(found["cls_logits"][0])[:, int(self.shares) :].amax(1)
            if "bbox_ctrness" in found:
                sure = sure * found["bbox_ctrness"][0, :, 0].sigmoid()
            near = overlap >= NEAR * overlap.max()
            self.candidate = int(sure.masked_fill(~near, -1).argmax())

    def forward(self, x: Tensor) -> Tensor:
        """The probability of each class at that candidate, (N, classes); of FCOS without its factor
        for how central the candidate lies.

        Args:
            x: images, normalised and resized as the detector does it, (N, C, H, W).
        """
        return self._scores(self.head(_maps(self.backbone(x)))["cls_logits"][:, self.candidate])

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(1) if self.shares else logits.sigmoid()


def _candidates(detector: Any, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The boxes that the detector has to choose from, as torchvision decodes them,
    (candidates, 4), and what its head says of each."""
    images = import_torchvision().models.detection.image_list.ImageList
    maps = _maps(detector.backbone(image))
    (anchors,) = detector.anchor_generator(images(image, [tuple(image.shape[2:])]), maps)
    coder = detector.box_coder
    decode = coder.decode_single if hasattr(coder, "decode_single") else coder.decode
    found = detector.head(maps)
    return decode(found["bbox_regression"][0], anchors), found


def _maps(found: Tensor | dict[str, Tensor]) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found.values())
