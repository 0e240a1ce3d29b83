"""``explain``: a model and an image in, an ``Explanation`` out."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from torchfbi.capture.fingerprint import known_hash
from torchfbi.errors import InputError, SettingsError, TargetError, first_line
from torchfbi.explanation import several
from torchfbi.explanation.explanation import Explanation
from torchfbi.explanation.fitting import fitting_tau
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.explanation.predict import predictor
from torchfbi.explanation.reuse import Forwards, Reusing
from torchfbi.explanation.several import InputExplanations
from torchfbi.explanation.verifying import Asked, Remembered, verify_maps
from torchfbi.method.flow import LayerFlow, LayerSupport
from torchfbi.method.seeds import as_classes
from torchfbi.method.settings import Settings
from torchfbi.method.tokens import shares
from torchfbi.models import Labels, Model, load
from torchfbi.models.images import Photo
from torchfbi.models.preprocess import Region
from torchfbi.verification import Verdict

AnyTarget = int | str | Tensor | Sequence[int | str] | Callable[[Tensor], Tensor] | None


@overload
def explain(
    model: str | Model | nn.Module | ExportedProgram, images: several.Inputs,
    target: AnyTarget = None,
    settings: Settings | str | None = None, *, output: int | str | None = None,
    record: bool = False, forwards: Forwards | None = None, low_memory: bool = False,
) -> InputExplanations: ...  # fmt: skip
@overload
def explain(
    model: str | Model | nn.Module | ExportedProgram, images: Any, target: AnyTarget = None,
    settings: Settings | str | None = None, *, output: int | str | None = None,
    record: bool = False, forwards: Forwards | None = None, low_memory: bool = False,
) -> Explanation: ...  # fmt: skip
def explain(
    model: str | Model | nn.Module | ExportedProgram,
    images: Any,
    target: AnyTarget = None,
    settings: Settings | str | None = None,
    *,
    output: int | str | None = None,
    record: bool = False,
    forwards: Forwards | None = None,
    low_memory: bool = False,
) -> Explanation | InputExplanations:
    """Explain which pixels made ``model`` say ``target``.

    >>> explanation = explain("efficientnet-lite0", "cat.jpg")          # the top class
    >>> explanation = explain("efficientnet-lite0", "cat.jpg", ["tabby", "top2"])   # two samples
    >>> explanation = explain(network, tensor, target=[3, 7], settings="paper")

    Args:
        model: a ``Model``, the name of one, or any ``nn.Module`` of one input in evaluation
            mode. It is not changed.
        images: a tensor (N, C, ...) as the network takes it; or, for a ``Model``, one photo or
            a list of them: paths, bytes, PIL images, arrays or ``Photo``. For a network of several
            inputs a tuple or dictionary of tensors (see ``InputExplanations``).
        target: None: the top class. An integer: that class. A text: the class of that name,
            or ``"top2"`` for the second most probable. A list of these, or a tensor of
            integers: one for each sample; several for one image share its forward pass, and
            the explanation has a sample for each of them.
            A function from the logits (N, classes) to classes, or to a seed of their shape.
        settings: ``Settings``, or the name of a preset; ``"contrast"`` by default.
        output: which output is explained where the network returns several.
        record: keep the whole flow in ``Explanation.flow``.
        forwards: remembers forward passes: who asks again about the same image gives the same.
        low_memory: keep few activations and run parts of the network twice, for very large
            images. It remembers no forward pass.

    Raises:
        ImageError: a photo cannot be read.
        TargetError: no such class.
        InputError: the images do not fit the model, or hold NaN.
        CaptureError: the model cannot be captured.
        SettingsError, ModelError: unknown names.
    """
    named = isinstance(model, str)
    if isinstance(model, str):
        model = load(model)
    if several.are_several(images):
        options: Any = {"settings": settings, "record": record, "low_memory": low_memory}
        return several.explain_inputs(explain, model, images, target, output, **options)
    if isinstance(settings, str):
        settings = Settings.from_preset(settings)
    if not (settings is None or isinstance(settings, Settings)):
        raise SettingsError(f"settings are {settings!r}: give Settings or the name of a preset.")
    module = model.module if isinstance(model, Model) else model
    labels = model.labels if isinstance(model, Model) else None
    x, photos, regions = as_batch(model, images)
    if forwards is None or low_memory:
        walker = ForwardBackward(module, x, settings, output, low_memory=low_memory)
    else:
        walker = Reusing(module, x, settings, output, forwards=forwards)
    labels = _labels_of(labels, walker.graph.logits.meta["val"], output)
    walks = _walks(target) if len(x) == 1 else 1
    photos, regions = photos * walks, regions * walks
    chosen = resolve(target, labels, len(x) * walks)
    answers: list[Tensor | None] = []

    def ask(logits: Tensor) -> Any:  # once only: a function may answer differently next time
        answers.append(chosen(logits) if callable(chosen) else chosen)
        return answers[0]

    ask.sees_output = getattr(chosen, "sees_output", False)  # type: ignore[attr-defined]
    layers: list[LayerSupport] = []
    flow: list[LayerFlow] = []

    def visit(seen: LayerFlow) -> None:
        layers.append(LayerSupport(seen.layer, seen.support, seen.density))
        if record:
            flow.append(seen)

    absorbed: dict[str, Tensor] = {"image": x.new_zeros(len(x))}
    values, logits = walker.walk(x, ask, visit, walks, absorbed)
    network = (lambda: module) if named else weakref.ref(module)  # the user's are not held
    silent = walker.settings.tau and not values.flatten(1).any(1).all()
    return Explanation(
        values=values,
        logits=logits,
        target=_classes(answers[0], logits),
        question=getattr(target, "question", None),
        layers=tuple(layers),
        settings=walker.settings,
        labels=None if labels is None else tuple(labels),
        photos=photos,
        regions=regions,
        model=model.name if isinstance(model, Model) else type(module).__name__,
        flow=tuple(flow),
        head=walker.graph.head,
        shares=shares({name: part for name, part in absorbed.items() if part.any()}),
        fitting_tau=fitting_tau(walker, x, answers[0], walks) if silent else None,
        preprocess=model.preprocess if isinstance(model, Model) and photos else None,
        assumed=model.assumed if isinstance(model, Model) and photos else (),
        weights=known_hash(model.module, walker.graph) if isinstance(model, Model) else None,
        _asked=Remembered(network, x, output, low_memory),
    )


def verify(
    model: str | Model | nn.Module | ExportedProgram,
    images: Any,
    maps: Tensor | np.ndarray,
    target: AnyTarget = None,
    *,
    output: int | str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Verdict, ...]:
    """Test any method's maps on the images that they explain; see docs/verify.md.

    >>> verify(network, tensor, my_map, target=3)[0].sentence

    At most 60 forward passes an image.

    Args:
        model, images, output: as for ``explain``.
        maps: (N, ...) of the images' sizes, or (...) for one image, finite. Larger speaks more for
            the class; only the order counts.
        target: the class that the map is about, as for ``explain``, but no function; the top class
            by default.
        seed: of what is drawn at random.
        progress: called with the number of images that are done, and of all, before every forward
            pass; what it raises ends the work.

    Returns:
        A verdict for each image.

    Raises:
        InputError: the maps do not fit the images. NonFiniteError: they hold NaN.
        TargetError: no such class, or a function instead of one.
        ImageError, CaptureError, ModelError: as for ``explain``.
    """
    if isinstance(model, str):
        model = load(model)
    module = model.module if isinstance(model, Model) else model
    labels = model.labels if isinstance(model, Model) else None
    x, _, _ = as_batch(model, images)
    if callable(target):
        raise TargetError(
            "the target is a function, and a part of the image can keep a class alone: give the "
            "class that the map is about."
        )
    try:
        evidence = torch.as_tensor(maps)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the maps are no numbers: {first_line(error)}") from None
    if evidence.is_complex() or evidence.is_meta or evidence.layout != torch.strided:
        raise InputError("the maps must be a dense tensor (N, ...) of real numbers.")
    evidence = evidence[None] if evidence.ndim == x.ndim - 2 else evidence
    predict, _ = predictor(module, x, output)
    with torch.inference_mode():
        answers = predict(x)
    labels = _labels_of(labels, answers, output)
    chosen = resolve(target, labels, len(x))
    classes = as_classes(chosen(answers) if callable(chosen) else chosen, answers).clone()

    def name(number: int) -> str:
        return labels[number] if labels and number < len(labels) else f"class {number}"

    return verify_maps(
        Asked(module, x, output), evidence, classes, name, seed=seed, progress=progress
    )


def _labels_of(labels: Labels | None, logits: Tensor, output: int | str | None) -> Labels | None:
    """The labels; None for an output that has another number of classes than they name.

    Raises:
        TargetError: it is the only output.
    """
    if labels is not None and logits.ndim == 2 and len(labels) != logits.shape[1]:
        if output is not None:
            return None
        labels.check(logits.shape[1])
    return labels


def as_batch(
    model: Model | nn.Module | ExportedProgram, images: Any
) -> tuple[Tensor, tuple[Photo, ...], tuple[Region, ...]]:
    """Images in any form that ``explain`` takes as a tensor (N, C, ...), and the photos behind it.

    Raises:
        ImageError: a photo cannot be read.
        InputError: no image, or photos for a bare module.
    """
    if isinstance(images, Tensor):
        if images.ndim < 3:
            raise InputError(f"images have shape {tuple(images.shape)}: give (N, C, ...).")
        return images.detach().clone(), (), ()  # the caller may write over it
    if not isinstance(model, Model):
        raise InputError(
            "a bare nn.Module takes a tensor (N, C, ...): to explain photos, wrap it in a "
            "torchfbi.Model with its preprocessing."
        )
    sources = list(images) if isinstance(images, list | tuple) else [images]
    if not sources:
        raise InputError("there is no image to explain.")
    photos = tuple(s if isinstance(s, Photo) else Photo.read(s) for s in sources)
    tensors, regions = zip(*(model.preprocess(photo) for photo in photos), strict=True)
    return model.placed(torch.stack(tensors)), photos, tuple(regions)


def _walks(target: AnyTarget) -> int:
    """How many targets are asked for."""
    if isinstance(target, Tensor):
        return target.numel() if target.ndim == 1 else 1
    return len(target) if isinstance(target, list | tuple) and target else 1


def resolve(
    target: AnyTarget, labels: Labels | None, samples: int
) -> Tensor | Callable[[Tensor], Tensor] | None:
    """Names become numbers; where there is a ``top2``, a function of the logits."""
    if target is None or callable(target):
        return target
    if isinstance(target, list | tuple) and len(target) != samples:
        raise TargetError(f"{len(target)} targets were given for {samples} image(s).")
    if isinstance(target, str):
        target = [target] * samples
    ranks = []
    if isinstance(target, list | tuple):
        ranks = [_rank(t) for t in target]
        target = [_number(t, labels) if isinstance(t, str) else t for t in target]
        if any(isinstance(t, bool | np.bool_) for t in target):
            raise TargetError(f"the target is {_shown(target)}: give class numbers or names.")
    try:
        numbers = (
            target
            if isinstance(target, Tensor)
            else torch.as_tensor(np.asarray(target), device="cpu")
        )
    except (TypeError, ValueError, RuntimeError):
        raise TargetError(f"the target is {_shown(target)}: give class numbers or names.") from None
    if numbers.is_floating_point():
        raise TargetError(f"the target must hold class numbers, not {numbers.dtype}.")
    return _ranked(ranks, numbers) if any(ranks) else numbers


def _shown(target: Any) -> str:
    try:
        return f"{target!r:.80}"
    except ValueError:  # Python prints no integer of thousands of digits
        return "a number of thousands of digits"


def _rank(target: Any) -> int:
    """2 of ``"top2"``, 0 of anything else."""
    text = target.strip() if isinstance(target, str) else ""
    found = re.fullmatch(r"top([1-9]\d{0,8})", text, re.ASCII)
    return int(found[1]) if found else 0


def _number(name: str, labels: Labels | None) -> int:
    text = name.strip()
    if _rank(name):
        if labels is not None and text in (label.strip() for label in labels):
            raise TargetError(f"{text!r} is a rank and the name of a class: give the number.")
        return 0  # that depends on the logits
    if re.fullmatch(_NUMERAL, text, re.ASCII):
        return _of_numeral(text, [] if labels is None else list(labels))
    if labels is None:
        raise TargetError(
            f"the target is {name!r:.80}, but this model has no labels: give the class number, or "
            "wrap it in a torchfbi.Model with labels."
        )
    return labels.find(name)


_NUMERAL = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"


def _of_numeral(text: str, names: list[str]) -> int:
    """The class that a numeral means: its number, or the one class of that very name.

    Raises:
        TargetError: it is no class number, or the number of one class and the name of another.
    """
    named = [i for i, name in enumerate(names) if name.strip() == text]
    number = int(text) if text.isdecimal() and len(text) < 10 else None
    if number is None and len(named) == 1:
        return named[0]
    if number is None or named not in ([], [number]):
        means = f" It is the name of class {', '.join(map(str, named))}." if named else ""
        raise TargetError(
            f"the target {text!r:.80} is not clear: class numbers are whole, from 0 on.{means} "
            "Give the number as an integer."
        )
    return number


def _ranked(ranks: list[int], numbers: Tensor) -> Callable[[Tensor], Tensor]:
    """The class of each sample: the one of its rank, or where that is 0 its number."""

    def classes(logits: Tensor) -> Tensor:
        last = max(ranks)
        if logits.ndim != 2 or last > logits.shape[1]:
            raise TargetError(
                f"top{last}: the network's output has shape {tuple(logits.shape)}, not (N, "
                f"classes) with at least {last} classes."
            )
        order = logits.topk(last, dim=1).indices
        rows = zip(order.unbind(), ranks, numbers.to(order).unbind(), strict=True)
        return torch.stack([row[rank - 1] if rank else number for row, rank, number in rows])

    return classes


def _classes(answer: Tensor | None, logits: Tensor) -> Tensor | None:
    """The probed classes, or None where a function gave the seed itself."""
    if isinstance(answer, Tensor) and answer.is_floating_point():
        return None
    return as_classes(answer, logits).clone()  # the caller may write over it
