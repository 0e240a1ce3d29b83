"""From a photo to what a network takes, and maps from the network's pixels back onto the photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from torchfbi.errors import SettingsError
from torchfbi.models.images import Array, Photo
from torchfbi.system import forked

_FLOAT = torch.finfo(torch.float32)
"""In which photos are prepared."""

_LONGEST = 16
"""Of a photo this many times longer than wide only the cropped part is resized: 1 x 5000 pixels
would grow to 256 x 1280000. Else the whole is, as torchvision does: by its shape Pillow chooses
the order of two passes, and the orders differ by rounding."""


class Region(NamedTuple):
    """The part of a photo that the network sees, in photo pixels from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Preprocess:
    """What turns a photo into the tensor that a network was trained on.

    Args:
        resize: length of the photo's shorter side after resizing, in network pixels.
        crop: side, or (height, width), of what is cut out of its centre: the network's input.
        mean: per channel, on the 0..1 scale; subtracted first.
        std: per channel, on the 0..1 scale; divided by next.
        interpolation: how to resize (always antialiased, as PIL and torchvision do on photos).
        channels: ``"RGB"``; ``"BGR"``, as networks that come from Caffe take them; or ``"L"`` for
            one grey channel. ``mean`` and ``std`` have the same order.
        fit: ``"crop"``: resize the shorter side, then cut out the centre, as networks are
            trained. ``"stretch"``: squeeze the whole photo into ``crop``, so that nothing is cut
            off; ``resize`` is unused.

    Raises:
        SettingsError: crop above resize or below 1, unknown choice; a channel without a mean or a
            std, one that is not finite in float32, or a std that is not above 0.
    """

    resize: int
    crop: int | tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    fit: Literal["crop", "stretch"] = "crop"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        n, fits = len(self.channels), self.fit == "stretch" or max(self.size) <= self.resize
        finite = all(abs(number) <= _FLOAT.max for number in (*self.mean, *self.std))
        for rule, holds in (
            ("interpolation is bilinear or bicubic", self.interpolation in ("bilinear", "bicubic")),
            ("channels is RGB, BGR or L", self.channels in ("RGB", "BGR", "L")),
            ("fit is crop or stretch", self.fit in ("crop", "stretch")),
            ("mean and std have one number a channel", len(self.mean) == len(self.std) == n),
            ("mean and std are finite", finite),
            ("every std is above 0", all(number >= _FLOAT.tiny for number in self.std)),
            ("crop is positive and at most resize", min(self.size) >= 1 and fits),
        ):
            if not holds:
                raise SettingsError(f"{rule}, other than in {self}.")

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Preprocess:
        """From what ``dataclasses.asdict`` gave, and JSON kept.

        Raises:
            SettingsError, TypeError: it is none.
        """
        crop = saved["crop"]  # a tuple is a list in JSON
        return cls(**{**saved, "crop": tuple(crop) if isinstance(crop, list) else crop})

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input, in network pixels."""
        return self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)

    def words(self) -> dict[str, str]:
        """How photos become inputs, in words: each part by the name that ``Model.assumed`` has."""
        mean, std = (", ".join(f"{x:.4g}" for x in dict.fromkeys(n)) for n in (self.mean, self.std))
        height, width = self.size
        cut = f"the shorter side resized to {self.resize}, the centre {width} × {height} cut out"
        squeezed = f"the whole photo, squeezed to {width} × {height}"
        return {
            "mean": f"{self.channels} of 0 to 1, less {mean}",
            "std": f"divided by {std}",
            "framing": squeezed if self.fit == "stretch" else cut,
        }

    def region(self, shape: tuple[int, int]) -> Region:
        """The part of a photo of this (height, width) that the network sees."""
        (rows, columns), (top, left) = self._grid(shape)
        y, x = shape[0] / rows, shape[1] / columns
        right, bottom = (left + self.size[1]) * x, (top + self.size[0]) * y
        return Region(left * x, top * y, min(right, shape[1]), min(bottom, shape[0]))

    def _grid(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the resized photo, and row and column where the crop begins."""
        if self.fit == "stretch":
            return self.size, (0, 0)
        # Sizes are truncated and offsets rounded exactly as torchvision does.
        rows, columns = (int(self.resize * side / min(shape)) for side in shape)
        offset = round((rows - self.size[0]) / 2), round((columns - self.size[1]) / 2)
        return (rows, columns), offset

    def __call__(self, photo: Photo) -> tuple[Tensor, Region]:
        """Prepare a photo.

        Returns:
            float32 (C, H, W), normalised, on the CPU; and the part of the photo it shows.
        """
        forked.on_one_thread()
        region = self.region(photo.shape)
        (height, width), (rows, columns), (top, left) = self.size, *self._grid(photo.shape)
        image = Image.fromarray(photo.pixels).convert("L" if self.channels == "L" else "RGB")
        resample = Image.Resampling[self.interpolation.upper()]
        if rows * columns <= _LONGEST * self.resize**2:
            image = image.resize((columns, rows), resample)
            image = image.crop((left, top, left + width, top + height))
        else:
            image = image.resize((width, height), resample, box=region)
        x = torch.from_numpy(np.array(image)).float().div(255)
        x = self._reorder(x.reshape(height, width, len(self.channels)).permute(2, 0, 1))
        mean, std = torch.tensor([self.mean, self.std])[..., None, None]
        return ((x - mean) / std).contiguous(), region

    def _reorder(self, x: Tensor) -> Tensor:
        """From red, green, blue to the network's order, or back."""
        return x.flip(0) if self.channels == "BGR" else x

    def denormalise(self, x: Tensor) -> npt.NDArray[np.uint8]:
        """Turn a prepared tensor (C, H, W) back into RGB pixels, uint8 (H, W, 3)."""
        mean, std = torch.tensor([self.mean, self.std])[..., None, None]
        x = self._reorder(x.detach().cpu().float() * std + mean).mul(255).round().clamp(0, 255)
        return np.array(x.to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy())


def on_photo(values: Tensor | Array, photo_shape: tuple[int, int], region: Region) -> Array:
    """Resample a map given in network pixels onto the pixel grid of the photo.

    Args:
        values: (..., h, w), bool, integer or float.
        photo_shape: (H, W) of the photo.
        region: the part of the photo that the map shows, as ``Preprocess`` returned it.

    Returns:
        (..., H, W), zero on photo pixels wholly outside the region. Floats (float64, else float32)
        are interpolated linearly, and averaged with the triangle filter where the photo is the
        coarser grid. Other dtypes stay and take the value of the nearest network pixel.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    dtype = np.float64 if values.dtype == np.float64 else np.float32
    y, rows = _weights(photo_shape[0], region.top, region.bottom, values.shape[-2], dtype)
    x, columns = _weights(photo_shape[1], region.left, region.right, values.shape[-1], dtype)
    if np.issubdtype(values.dtype, np.floating):
        inside = y @ values.astype(dtype) @ x.T
    else:
        inside = values[..., y.argmax(1)[:, None], x.argmax(1)]
    result = np.zeros((*values.shape[:-2], *photo_shape), inside.dtype)
    result[..., rows, columns] = inside
    return result


def _weights(n: int, start: float, stop: float, size: int, dtype: Any) -> tuple[Array, slice]:
    """Weights (photo pixels, ``size`` network pixels) of linear interpolation along one axis, and
    which of the ``n`` photo pixels these are: all that touch the region."""
    slack = 1e-6  # of a pixel: a rounding error must not touch the neighbour
    touched = slice(int(start + slack), min(int(np.ceil(stop - slack)), n))
    scale = size / (stop - start)
    centres = (np.arange(n)[touched] + 0.5 - start) * scale
    distance = np.abs(centres[:, None] - (np.arange(size) + 0.5)) / max(scale, 1)
    weights = np.clip(1 - distance, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(dtype), touched
