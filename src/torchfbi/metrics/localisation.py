"""Does the map lie where the object is?

All of it is judged against masks, bool, True inside the object: (N, H, W), or one (H, W) for all
maps. A mask without any pixel leaves nothing to find: its sample is NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from torchfbi.errors import InputError, SettingsError
from torchfbi.metrics.checks import checked_maps, checked_masks


def energy_in_mask(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of the map's sum that lies inside the mask.

    The energy-based pointing game of Wang et al. 2020 (Score-CAM), the relevance
    mass accuracy of Arras et al. 2022 (CLEVR-XAI). With the mask of ``grid_cell`` it is the
    localisation score of the grid pointing game.

    Args:
        maps: (N, H, W), >= 0.
        masks: bool, (N, H, W) or (H, W).

    Returns:
        (N,) float64 in [0, 1]; an empty map has 0, an empty mask NaN.

    Raises:
        InputError: maps or masks of another shape or type.
    """
    values = checked_maps(maps)
    inside = checked_masks(masks, values)
    total = values.sum((1, 2))
    energy = (values * inside).sum((1, 2)) / torch.where(total > 0, total, 1.0)
    return _where_object(energy, inside)


def top_area_in_mask(maps: Tensor, masks: Tensor, *, fill: bool = True) -> Tensor:
    """The share of the |mask| highest pixels that lie inside the mask.

    The relevance rank accuracy of Arras et al. 2022 (CLEVR-XAI). Pixels that tie for
    the last places count by expectation, as if drawn at random. The pixels off a sparse map's
    support tie at 0: what its support leaves open is guessed, unless ``fill`` is False.

    Args:
        maps: (N, H, W), >= 0.
        masks: bool, (N, H, W) or (H, W).
        fill: whether pixels off the support count where it is smaller than the mask; otherwise
            it is the share of the support's highest pixels, at most |mask|, inside the mask.

    Returns:
        (N,) float64 in [0, 1]. An empty mask has NaN; an empty map the mask's share of the image,
        or 0 without ``fill``.

    Raises:
        InputError: maps or masks of another shape or type.
    """
    values = checked_maps(maps)
    inside = checked_masks(masks, values).flatten(1)
    values, area = values.flatten(1), inside.sum(1, keepdim=True)
    if not fill:
        area = area.minimum((values > 0).sum(1, keepdim=True))
    last = values.sort(1, descending=True).values.gather(1, (area - 1).clamp(min=0))
    above, tied = values > last, values == last
    left = (area - above.sum(1, keepdim=True)).double()
    drawn = (left / tied.sum(1, keepdim=True))[:, 0]  # of the tied pixels
    hits = (above & inside).sum(1) + drawn * (tied & inside).sum(1)
    return _where_object(hits / area[:, 0].clamp(min=1), inside)


def pointing_game(maps: Tensor, masks: Tensor, tolerance: float = 15) -> Tensor:
    """Whether the map's maximum hits the object, or misses it by no more than ``tolerance``.

    Zhang et al. 2016 (excitation backprop) with their 15 pixels. Where several
    pixels share the maximum, it is the share of them that hit.

    Args:
        maps: (N, H, W), >= 0.
        masks: bool, (N, H, W) or (H, W).
        tolerance: the largest Euclidean distance to the object that still hits, in pixels >= 0.

    Returns:
        (N,) float64 in [0, 1]; an empty map points nowhere and has 0, an empty mask NaN.

    Raises:
        InputError: maps or masks of another shape or type.
        SettingsError: a negative tolerance.
    """
    if not tolerance >= 0:
        raise SettingsError(f"tolerance={tolerance}: it is a distance in pixels, 0 or more.")
    values = checked_maps(maps)
    inside = checked_masks(masks, values)
    largest = values.amax((1, 2), keepdim=True)
    maxima = (values == largest) & (largest > 0)
    hits = (maxima & _dilated(inside, tolerance)).sum((1, 2)).double()
    return _where_object(hits / maxima.sum((1, 2)).clamp(min=1), inside)


def grid_cell(height: int, width: int, n: int, row: int, column: int) -> Tensor:
    """The mask of one cell of an n x n grid.

    Of the grid pointing game of Böhle et al. 2021 (convolutional dynamic alignment
    networks): n x n images of distinct classes in one, whose score for a class is
    ``energy_in_mask(maps, grid_cell(...))``, the share of the positive attribution in the
    class's own cell. Where n does not divide the size the cells differ by one pixel.

    Args:
        height, width: of the whole image.
        n: cells in a row and in a column, at most as many as pixels.
        row, column: of the cell, from 0 at the top left.

    Returns:
        (height, width) bool.

    Raises:
        InputError: no such cell.
    """
    if not (0 <= row < n <= height and 0 <= column < n <= width):
        raise InputError(
            f"there is no cell ({row}, {column}) in a {n} x {n} grid of {height} x {width} pixels."
        )
    cell = torch.zeros(height, width, dtype=torch.bool)
    cell[row * height // n : (row + 1) * height // n, column * width // n :] = True
    cell[:, (column + 1) * width // n :] = False
    return cell


def _dilated(inside: Tensor, tolerance: float) -> Tensor:
    """The pixels at most ``tolerance`` away from those inside, (N, H, W) bool."""
    reach = int(min(tolerance, max(inside.shape[1:])))
    steps = torch.arange(-reach, reach + 1)
    disk = steps[:, None] ** 2 + steps**2 <= tolerance**2
    near = conv2d(inside[:, None].float(), disk[None, None].float(), padding=reach)
    return near[:, 0] > 0.5


def _where_object(values: Tensor, inside: Tensor) -> Tensor:
    return torch.where(inside.flatten(1).any(1), values, torch.nan)
