"""Patches: whole, of every dimension, and in the order of the map."""

from __future__ import annotations

import pytest
import torch

from torchfbi.verification.controls import centre, edges, elsewhere, likeness
from torchfbi.verification.grid import Grid
from torchfbi.verification.moves import Again, noisy, shifted, staying, steps


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("sizes", "side", "shape"),
    [
        ((224, 224), 8, (28, 28)),
        ((48, 48), 2, (24, 24)),
        ((16, 16), 1, (16, 16)),
        ((100, 300), 6, (17, 50)),
        ((1000,), 16, (63,)),
        ((16, 32, 32), 3, (6, 11, 11)),
    ],
)
def test_patches_cover_the_image_once(
    sizes: tuple[int, ...], side: int, shape: tuple[int, ...]
) -> None:
    grid = Grid.of(sizes)
    assert (grid.side, grid.shape) == (side, shape)
    one_each = torch.eye(grid.count, dtype=torch.bool).view(grid.count, *shape)
    pixels = grid.pixels(one_each)
    assert pixels.shape == (grid.count, *sizes)
    assert torch.equal(pixels.sum(0), torch.ones(sizes, dtype=torch.int64))
    values = torch.rand(sizes, dtype=torch.float64, generator=generator())
    expected = torch.stack([values[mask].mean() for mask in pixels]).view(shape)
    torch.testing.assert_close(grid.means(values), expected)


def test_the_order_begins_where_the_evidence_is() -> None:
    grid = Grid.of((224, 224))
    evidence = -torch.ones(224, 224)
    evidence[16:48, 160:192] = 5.0
    order = grid.order(evidence, generator())
    assert sorted(order.flatten().tolist()) == list(range(784))
    first = (order < 16).nonzero().double()
    assert first.mean(0).tolist() == pytest.approx([3.5, 21.5], abs=1)
    # Only the order counts, not the scale; and where nothing ties it does not depend on the draws.
    evidence += torch.rand(224, 224, generator=generator())
    order = grid.order(evidence, generator())
    assert torch.equal(grid.order(1000 * evidence, generator(1)), order)


def test_a_map_that_goes_with_its_image_stays() -> None:
    grid = Grid.of((224, 112))
    evidence = torch.zeros(224, 112)
    evidence[80:140, 30:70] = 1.0
    evidence += 0.01 * torch.rand(224, 112, generator=generator())
    turned = evidence.flip(0, 1).roll(112, 0)
    assert staying(grid, evidence, Again(2 * evidence, shifted(evidence[None, None])[0, 0])) == (
        1,
        1,
    )
    assert max(staying(grid, evidence, Again(turned, turned))) < 0.3


def test_shuffled_neighbours_are_not_alike() -> None:
    slope = torch.arange(600.0).view(20, 30)
    mixed = torch.stack(
        [
            slope.flatten()[torch.randperm(600, generator=generator(i))].view(20, 30)
            for i in range(99)
        ]
    )
    by_chance = torch.tensor([likeness(one) for one in mixed])
    assert abs(by_chance.mean()) < 0.3
    assert by_chance.std() == pytest.approx(1, abs=0.2)
    assert likeness(slope) > 30
    assert likeness(torch.ones(3, 4)) == 0


def test_images_that_change_a_little() -> None:
    images = torch.rand(2, 3, 40, 50, dtype=torch.float64, generator=generator())
    moved = shifted(images)
    assert torch.equal(moved[..., 1:, 1:], images[..., :-1, :-1])
    assert steps((40, 50)) == [1, 1]
    assert steps((224, 224)) == [5, 5]
    assert steps((1, 600, 3)) == [0, 1, 0]
    noise = noisy(images, 0) - images
    spread = images.flatten(1).std(1)
    assert (noise.flatten(1).std(1) / spread).tolist() == pytest.approx([0.1, 0.1], rel=0.05)
    torch.testing.assert_close(noise[0] / spread[0], noise[1] / spread[1])  # the same for each
    assert not torch.equal(noisy(images, 1), noisy(images, 0))


def test_ties_are_ordered_at_random() -> None:
    grid = Grid.of((32, 32))
    flat = torch.ones(32, 32)
    first, second = (grid.order(flat, generator(seed)) for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, grid.order(flat, generator(0)))
    assert not torch.equal(first.flatten(), torch.arange(grid.count))


def test_controls_by_hand() -> None:
    part = torch.zeros(4, 4, dtype=torch.bool)
    part[0, :3] = True
    moved = elsewhere(part)
    assert moved.sum() == 3
    assert not (moved & part).any()
    image = torch.zeros(1, 2, 8, 8)
    image[..., 4:] = 1.0
    for found in edges(image):
        assert found[:, 3:5].min() > 0
        assert found[:, :3].max() == found[:, 5:].max() == 0
    image[0, 1] = -image[0, 0]  # a change of colour alone
    coloured, grey = edges(image)
    assert coloured.max() > 0
    assert grey.max() == 0
    nearness = centre(Grid.of((9, 9)))
    assert nearness.argmax() == 40
    assert nearness[0, 0] == nearness.min()
