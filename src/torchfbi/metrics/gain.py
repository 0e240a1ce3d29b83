"""Symmetric relevance gain: is what the map ranks first enough, and is it needed?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchfbi.errors import SettingsError
from torchfbi.metrics.prediction import Predict, checked_sample, target_scores
from torchfbi.metrics.removal import Remove
from torchfbi.metrics.units import checked_units, unit_order


class Curves(NamedTuple):
    """What the network says while units appear and vanish, both in the map's order.

    Args:
        share: the share of the pixels that appeared or vanished so far, (N, steps + 1) float64,
            from 0 to 1.
        insertion: the score with only these pixels, (N, steps + 1) float64.
        deletion: the score without them, (N, steps + 1) float64.
    """

    share: Tensor
    insertion: Tensor
    deletion: Tensor

    def gain(self) -> Tensor:
        """The area under the insertion curve less that under the deletion curve, (N,) float64."""
        return torch.trapezoid(self.insertion - self.deletion, self.share, dim=1)


def symmetric_relevance_gain(
    predict: Predict,
    x: Tensor,
    target: Tensor,
    maps: Tensor,
    units: Tensor,
    remove: Remove,
    *,
    then: Tensor | None = None,
    rivals: Tensor | None = None,
    steps: int = 20,
    seed: int = 0,
    chunk: int = 32,
) -> Tensor:
    """Insertion AUC minus deletion AUC over whole units, of the class's relative probability.

    Blücher et al. 2024 ("Decoupling pixel flipping and occlusion strategy for consistent XAI
    benchmarks"), section 3.2: pixel flipping with the least relevant units first, less that with
    the most relevant first. What depends on the removal alone and not on the map, such as how
    early *any* holes break the prediction, is in both curves and cancels. 0 for a random order;
    1 cannot be reached where both curves are between 0 and 1 and continuous. Its greatest possible
    value is unknown; see ``greedy_oracle``.

    The probability is taken relative to that of the whole image, so that every photo counts the
    same. With ``rivals``, the *class-contrastive* gain, the score is the difference of the two
    outputs as they are: give logits for ``predict``, and images in which both classes are. A map
    that ranks both objects alike has 0.

    Costs 2 ``steps`` forward passes a sample. See ``gain_curves`` for the arguments.

    Returns:
        (N,) float64.
    """
    options = {"then": then, "rivals": rivals, "steps": steps, "seed": seed, "chunk": chunk}
    return gain_curves(predict, x, target, maps, units, remove, **options).gain()  # type: ignore[arg-type]


def gain_curves(
    predict: Predict,
    x: Tensor,
    target: Tensor,
    maps: Tensor,
    units: Tensor,
    remove: Remove,
    *,
    then: Tensor | None = None,
    rivals: Tensor | None = None,
    steps: int = 20,
    seed: int = 0,
    chunk: int = 32,
) -> Curves:
    """The curves of ``symmetric_relevance_gain``.

    Args:
        predict: from images (M, C, H, W) to probabilities, or any scores, (M, classes).
        x: (N, C, H, W) float, as the network takes it.
        target: (N,) int64.
        maps: (N, H, W), signed or not: only their order counts.
        units: what appears and vanishes whole, int64 (N, H, W), or (H, W) for all images.
        remove: what takes the place of what vanishes, from ``removal(x, ...)``.
        then: the order among units in which ``maps`` has the same mean, such as those a sparse map
            leaves at 0: maps (N, H, W), or None. What still ties is ordered at random.
        rivals: (N,) int64: the score is the target's output less this class's, else it is the
            target's over that of the whole image.
        steps: intervals of as many units each; fewer where there are fewer units.
        seed: of the random order.
        chunk: images in one forward pass.

    Raises:
        InputError: images, targets, maps and units that do not belong together.
        SettingsError: fewer than one step.
        TargetError: no such class.
    """
    values = checked_sample(x, target, maps, signed=True)
    second = None if then is None else checked_sample(x, target, then, signed=True)
    parts = checked_units(units, values)
    if steps < 1:
        raise SettingsError(f"steps={steps}: a curve needs at least one interval.")
    places = unit_order(values, parts, second, seed).gather(1, parts.flatten(1)).view(parts.shape)
    each = parts.flatten(1).amax(1) + 1 if len(parts) else parts.new_zeros(0)
    steps = min(steps, int(each.max())) if len(each) else steps
    ends = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    counts = (each[:, None] * ends).round().long()

    def alter(samples: Tensor, variants: Tensor) -> Tensor:
        step = variants % steps  # of the variants the first half is of insertion
        gone = places[samples] < counts[samples, step][:, None, None]
        return remove(samples, gone ^ (variants < steps)[:, None, None])

    scores = target_scores(predict, target, 2 * steps, alter, chunk, rivals)
    inserted, deleted = scores[:, :steps], scores[:, steps:]
    insertion = torch.cat([inserted, deleted[:, :1]], 1)
    deletion = torch.cat([deleted, inserted[:, :1]], 1)
    if rivals is None:
        whole = deleted[:, :1]
        insertion, deletion = insertion / whole, deletion / whole
    ordered = places.flatten(1).sort(1).values
    share = (
        torch.searchsorted(ordered, counts).double() / places[0].numel() if len(places) else ends
    )
    return Curves(share, insertion, deletion)
