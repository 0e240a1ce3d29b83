"""Units: the pieces of an image that are shown and taken away whole, and their order.

A partition of an image of H x W pixels into U units is an int64 tensor (H, W) that holds each
pixel's unit, 0 ... U - 1. Single pixels are no good units: deleting scattered dots fools any
network (Blücher et al. 2024, section 4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchfbi.errors import InputError, SettingsError, needs


def patches(height: int, width: int, side: int = 8) -> Tensor:
    """Squares of ``side`` pixels; those at the right and lower edge may be cut off.

    Returns:
        (H, W) int64.

    Raises:
        SettingsError: a side below 1.
    """
    if side < 1:
        raise SettingsError(f"side={side}: a patch has at least one pixel.")
    rows, columns = (torch.arange(size) // side for size in (height, width))
    return rows[:, None] * (-(-width // side)) + columns


def cells(height: int, width: int, n: int = 7) -> Tensor:
    """The n x n cells of a grid over the image; their sides differ by a pixel where n does not
    divide the image's.

    Returns:
        (H, W) int64.

    Raises:
        SettingsError: fewer than 1, or more cells than pixels along a side.
    """
    if not 1 <= n <= min(height, width):
        raise SettingsError(f"n={n}: there are between 1 and {min(height, width)} cells a side.")
    # The same cells as ``grid_cell``: the i-th begins at pixel floor(i size / n).
    rows, columns = ((torch.arange(size) * n + n - 1) // size for size in (height, width))
    return rows[:, None] * n + columns


def superpixels(picture: npt.NDArray[np.uint8], count: int) -> Tensor:
    """SLIC superpixels (Achanta et al. 2012), by scikit-image with its own defaults.

    Args:
        picture: uint8 (H, W, 3), RGB.
        count: about how many; on a small or plain picture it may be fewer.

    Returns:
        (H, W) int64.

    Raises:
        SettingsError: a count below 1.
        ModelError: scikit-image is missing.
    """
    if count < 1:
        raise SettingsError(f"count={count}: there is at least one superpixel.")
    with needs("torchfbi[demo]"):
        from skimage.segmentation import slic
    found = slic(picture, n_segments=count, start_label=0)
    return torch.from_numpy(np.unique(found, return_inverse=True)[1].reshape(found.shape))


def checked_units(units: Tensor, maps: Tensor) -> Tensor:
    """The partitions of the maps' images, int64 (N, H, W); one (H, W) serves all.

    Raises:
        InputError: another shape or dtype, or a negative number.
    """
    if units.shape not in (maps.shape, maps.shape[1:]) or units.dtype != torch.int64:
        raise InputError(
            f"the units are {units.dtype} {tuple(units.shape)}, the maps {tuple(maps.shape)}: give "
            "each pixel's unit as int64, for each map or (H, W) for all."
        )
    if units.numel() and units.min() < 0:
        raise InputError("a pixel's unit is negative: they are counted from 0.")
    return units.cpu().expand(maps.shape)


def unit_sums(maps: Tensor, units: Tensor) -> Tensor:
    """The sum of each map over each unit.

    Args:
        maps: (N, H, W) float64.
        units: int64 (N, H, W).

    Returns:
        (N, U) float64, where U is the largest number of units in any of the partitions.
    """
    count = int(units.max()) + 1 if units.numel() else 0
    sums = maps.new_zeros(len(maps), count)
    return sums.scatter_add_(1, units.flatten(1), maps.flatten(1))


def unit_order(maps: Tensor, units: Tensor, then: Tensor | None = None, seed: int = 0) -> Tensor:
    """Each unit's place in one total order, 0 for the largest mean of the map.

    The mean and not the sum, so that a large unit is not first for being large. Units of equal
    mean are ordered by ``then``, which is compared in the same way, and what still ties by one
    permutation drawn from the seed: there are no ties, and no answer depends on a sample's place
    in the batch.

    Args:
        maps: (N, H, W) float64, signed or not.
        units: int64 (N, H, W).
        then: as ``maps``, or None.
        seed: of the permutation.

    Returns:
        int64 (N, U); the places of units that a partition lacks come last.
    """
    sizes = unit_sums(torch.ones_like(maps), units)
    count = sizes.shape[1]
    shuffle = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    ranked = shuffle.expand(len(maps), -1)
    for key in (then, maps):  # stable: the last sort decides, the ones before break its ties
        if key is not None:
            mean = unit_sums(key, units) / sizes
            mean = torch.where(sizes > 0, mean, -torch.inf)
            by_key = mean.gather(1, ranked).argsort(dim=1, descending=True, stable=True)
            ranked = ranked.gather(1, by_key)
    return ranked.argsort(1)
