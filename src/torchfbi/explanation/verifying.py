"""From networks, images and maps as users have them to verdicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from torchfbi.capture import own
from torchfbi.errors import InputError, NonFiniteError, TargetError
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.explanation.predict import prediction, predictor
from torchfbi.method import evidence
from torchfbi.method.graph import Graph
from torchfbi.models import Model, load
from torchfbi.verification import (
    Again,
    Occlusion,
    Verdict,
    compared,
    examine,
    noisy,
    shifted,
)

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation

Progress = Callable[[int, int], None]

SAME = 0.05
"""So much a probability may differ from that of the explanation: by rounding, in half precision."""


class Asked(NamedTuple):
    """What is to be tested: the network, which of its outputs, and its input.

    Args:
        module: as ``explain`` got it.
        x: (N, C, ...), or (1, C, ...) for all samples.
        output: which output counts.
        low_memory: as for ``explain``.
    """

    module: nn.Module | ExportedProgram
    x: Tensor
    output: int | str | None = None
    low_memory: bool = False


class Remembered(NamedTuple):
    """What was explained, as an explanation keeps it: a network is freed when its user drops it.

    Args:
        network: gives the network; None where it is gone.
        x, output, low_memory: as for ``Asked``.
    """

    network: Callable[[], nn.Module | ExportedProgram | None]
    x: Tensor
    output: int | str | None
    low_memory: bool

    def one(self, index: int) -> Remembered:
        """The question behind one sample."""
        return self._replace(x=self.x[index : index + 1] if len(self.x) > 1 else self.x)


class Others(NamedTuple):
    """What the method that made the maps says of other questions, which only it can tell.

    Args:
        rivals: the strongest rival of each class, (N,) int64, and its map, (N, ...); None where
            there is but one class.
        noise, shift: the maps of the changed images, (N, ...); see ``verification.Again``.
    """

    rivals: tuple[Tensor, Tensor] | None
    noise: Tensor
    shift: Tensor


def ask_others(
    walker: ForwardBackward, x: Tensor, logits: Tensor, target: Tensor, seed: int = 0
) -> Others:
    """Explain the strongest rivals, and the same classes in images that changed a little.

    Args:
        walker: the method on the network.
        x: the images, (N, C, ...).
        logits: (N, classes).
        target: the classes that were explained, (N,).
        seed: of the noise.
    """

    def explained(images: Tensor, classes: Tensor) -> Tensor:
        values, _ = walker(images, classes)
        return evidence.of_values(values, walker.settings)

    rivals = None
    if logits.shape[1] > 1:
        others = next_classes(logits, target)
        rivals = others, explained(x, others)
    return Others(rivals, explained(noisy(x, seed), target), explained(shifted(x), target))


def verify_explanation(
    explanation: Explanation,
    model: str | Model | nn.Module | None,
    images: Tensor | None,
    seed: int,
    progress: Progress | None,
) -> tuple[Verdict, ...]:
    """As ``Explanation.verify``, which documents it."""
    asked = _asked(explanation, model, images)
    target = explanation.target
    if target is None:
        raise TargetError(
            "a function gave the seed of this explanation, so there is no class that a part of "
            "the image could keep: explain a class to verify it."
        )
    if len(asked.x) not in (1, len(explanation)):
        raise InputError(f"{len(asked.x)} images were given for {len(explanation)} sample(s).")
    x = asked.x.expand(len(explanation), *asked.x.shape[1:])
    walker = ForwardBackward(
        asked.module, x, explanation.settings, asked.output, low_memory=asked.low_memory
    )
    with own.undirected(x.device):  # held against its own answer
        others = ask_others(walker, x, explanation.logits, target, seed)
    return verify_maps(
        asked,
        explanation.evidence,
        target,
        explanation.label,
        graph=walker.graph,
        others=others,
        expected=explanation.probabilities.gather(1, target[:, None])[:, 0],
        seed=seed,
        progress=progress,
    )


def verify_maps(
    asked: Asked,
    maps: Tensor,
    target: Tensor,
    label: Callable[[int], str],
    *,
    graph: Graph | None = None,
    others: Others | None = None,
    expected: Tensor | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Verdict, ...]:
    """A verdict for each map.

    Args:
        asked: the network and its input.
        maps: (N, ...) as the input's sizes; larger speaks more for the class.
        target: (N,) int64.
        label: the name of a class.
        graph: of that network, where its answer was held against the network's own already.
        others: what the method says of other questions, if it can be asked.
        expected: the probability of each class that the network must give, (N,).
        seed: of what is drawn at random.
        progress: called with the number of maps that are done, and of all, before every forward
            pass; what it raises ends the work.

    Raises:
        InputError: the maps do not fit the input, or the network does not answer as ``expected``.
        NonFiniteError: a map holds NaN or infinity.
        TargetError: no such class, or the network's output is no (N, classes).
        CaptureError: the network cannot be captured.
    """
    x, count = asked.x.detach(), len(maps)
    _check(x, maps, target)
    if graph is None:
        network, exclusive = predictor(asked.module, x, asked.output)
    else:
        network, exclusive = prediction(graph, x.device)
    verdicts: list[Verdict] = []

    def predict(images: Tensor) -> Tensor:
        if progress is not None:
            progress(len(verdicts), count)
        return network(images)

    def verdict(i: int) -> Verdict:
        occlusion = Occlusion(
            predict, x[i : i + 1] if len(x) > 1 else x, int(target[i]), exclusive=exclusive
        )
        if expected is not None and abs(occlusion.probability - float(expected[i])) > SAME:
            raise InputError(
                f"this network gives {label(int(target[i]))} a probability of "
                f"{occlusion.probability:.3f}, the explanation says {float(expected[i]):.3f}: it "
                "is of another network, or the network or its input has changed. Explain it anew."
            )
        mine, rival, again = maps[i].cpu(), None, None
        if others is not None:
            again = Again(others.noise[i].cpu(), others.shift[i].cpu())
            if others.rivals is not None:
                number, other = int(others.rivals[0][i]), others.rivals[1][i].cpu()
                rival = compared(occlusion.grid, mine, other, label(number))
        return examine(occlusion, mine, label(int(target[i])), rival, again, seed)

    for i in range(count):
        with own.undirected(x.device):
            verdicts.append(verdict(i))
        if progress is not None:
            progress(i + 1, count)
    return tuple(verdicts)


def _check(x: Tensor, maps: Tensor, target: Tensor) -> None:
    """Refuse maps that do not fit the images."""
    if not 3 <= x.ndim <= 5:
        raise InputError(
            f"the input has shape {tuple(x.shape)}: images of one to three dimensions, (N, C, ...),"
            " can be verified."
        )
    if x[0, 0].numel() < 2:
        raise InputError("the images have a single pixel: there is no part of them to test.")
    if maps.shape[1:] != x.shape[2:] or len(x) not in (1, len(maps)) or len(target) != len(maps):
        raise InputError(
            f"the maps have shape {tuple(maps.shape)}, the images {tuple(x.shape)}, the targets "
            f"{tuple(target.shape)}: give a map (N, ...) of each image's size and a class each."
        )
    if not torch.isfinite(maps).all():
        raise NonFiniteError("a map holds NaN or infinite values.")


def next_classes(logits: Tensor, target: Tensor) -> Tensor:
    """The strongest rival of each class: the most probable other one, (N,) int64.

    Args:
        logits: (N, classes), at least two.
        target: (N,) int64.
    """
    return logits.scatter(1, target[:, None], -torch.inf).argmax(1)


def _asked(
    explanation: Explanation, model: str | Model | nn.Module | None, images: Tensor | None
) -> Asked:
    """The network and its input, from the call or from when it was explained."""
    known = explanation._asked
    if model is None:
        if known is None:
            raise InputError(
                "this explanation was loaded, and a file holds no network: give it, "
                "verify(model=...)."
            )
        network = known.network()
        if network is None:
            raise InputError(
                "the network was freed, as nobody but this explanation knew it any more: keep it, "
                "or give it, verify(model=...)."
            )
        return Asked(network, known.x if images is None else images, *known[2:])
    if isinstance(model, str):
        model = load(model)
    module = model.module if isinstance(model, Model) else model
    if images is None and known is not None:
        return Asked(module, *known[1:])
    if images is None:
        if not explanation.photos or not isinstance(model, Model):
            raise InputError(
                "this explanation holds no photo, or the network no preprocessing: give what the "
                "network was shown, verify(model=..., images=tensor)."
            )
        images = torch.stack([model.preprocess(photo)[0] for photo in explanation.photos])
        images = images.to(next(module.parameters(), images))
    return Asked(module, images)
