"""Networks of several inputs: each is explained with the others held as they are."""

from __future__ import annotations

import copy
import inspect
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from torchfbi.capture.folding import FREE
from torchfbi.errors import InputError
from torchfbi.explanation.explanation import Explanation
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.settings import Settings
from torchfbi.method.tokens import shares
from torchfbi.models import Model

Inputs = tuple[Tensor, ...] | dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class InputExplanations(Mapping[str, Explanation]):
    """An explanation for each image-like input, by the name of the forward's argument.

    >>> found = explain(siamese, (photo, other))
    >>> found["photo"].plot()
    >>> found.shares["photo"], found.shares["other"]

    Args:
        explanations: of each input (N, C, ...), with the other inputs held.
        shares: which share each floating-point input contributes to the probed answer, images and
            others: (N,) float in [0, 1], of which all sum to 1. It is the magnitude of the input
            times the gradient (``plain``), summed; zeros in an input contribute nothing.
    """

    explanations: dict[str, Explanation]
    shares: dict[str, Tensor]

    def __getitem__(self, name: str) -> Explanation:
        return self.explanations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.explanations)

    def __len__(self) -> int:
        return len(self.explanations)

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {share.mean():.0%}" for name, share in self.shares.items())
        return f"InputExplanations({', '.join(self)}; shares {shares})"


def are_several(images: Any) -> bool:
    """Whether these are the inputs of one call: a tuple of tensors, or tensors by name."""
    if isinstance(images, dict):
        return True
    return isinstance(images, tuple) and all(isinstance(part, Tensor) for part in images)


def explain_inputs(
    explain: Callable[..., Any],
    model: Model | nn.Module | ExportedProgram,
    inputs: Inputs,
    target: Any,
    output: int | str | None,
    **options: Any,
) -> InputExplanations:
    """Each image-like input with the others held, and what every input contributes.

    Args:
        explain: ``torchfbi.explain``, which answers for one input.
        model, inputs, target, output, options: as it takes them.

    Raises:
        InputError: the inputs do not fit the model, or none is an image. And what ``explain`` does.
    """
    module: Any = model.module if isinstance(model, Model) else model
    given = named(module, inputs)
    explanations: dict[str, Explanation] = {}
    contributions: dict[str, Tensor] = {}
    for name in sorted(given, key=lambda name: given[name].ndim < 3):  # images tell the target
        if not given[name].is_floating_point():
            continue
        one = of_one(module, given, name)
        if given[name].ndim > 2:
            whole = replace(model, module=one) if isinstance(model, Model) else one
            found = explain(whole, given[name], target, output=output, **options)
            asked = found._asked._replace(network=_renewed(module, given, name))
            explanations[name] = replace(found, _asked=asked)
            target = target if found.target is None else found.target
        walker = ForwardBackward(one, given[name], Settings.plain(), output)
        values, _ = walker(given[name], target)
        contributions[name] = (values * given[name]).flatten(1).sum(1)
    if not explanations:
        raise InputError("none of the inputs is an image: give one of shape (N, C, ...).")
    ordered = [name for name in given if name in contributions]
    return InputExplanations(
        {name: explanations[name] for name in ordered if name in explanations},
        shares({name: contributions[name] for name in ordered}),
    )


def named(module: Any, inputs: Inputs) -> dict[str, Tensor]:
    """The inputs by the names of the forward's arguments.

    Raises:
        InputError: they do not fit the module, or are no tensors of one batch.
    """
    if not isinstance(module, nn.Module):
        raise InputError("several inputs need the original nn.Module: its forward names them.")
    signature = inspect.signature(module.forward)
    try:
        bound = (
            signature.bind(**inputs) if isinstance(inputs, dict) else signature.bind(*inputs)
        ).arguments
    except TypeError as error:
        raise InputError(f"the inputs do not fit the model's forward{signature}: {error}") from None
    found: dict[str, Tensor] = {}
    for name, value in bound.items():
        if not isinstance(value, Tensor) or value.ndim == 0:
            raise InputError(f"the input {name!r} is no tensor of a batch: give (N, ...).")
        found[name] = value
    sizes = {name: len(value) for name, value in found.items()}
    if len(set(sizes.values())) != 1:
        raise InputError(f"the inputs have batches of different sizes: {sizes}.")
    return found


def of_one(
    module: nn.Module, inputs: dict[str, Tensor], name: str, *, free: bool = False
) -> nn.Module:
    """The module as a function of one of its inputs, the others held. It shares all parts.

    Args:
        inputs: by name; one that is held is of as many samples as the images, or of one for all.
        name: the one that is left.
        free: the held ones are inputs of what is exported.
    """
    prefix = FREE if free else "held_"
    held = {other: prefix + other for other in inputs if other != name}
    forward = vars(module).get("forward", type(module).forward)
    if getattr(forward, "__self__", None) is module:  # a method that took the place of the class's
        forward = forward.__func__
    elif "forward" in vars(module):
        raise InputError(
            "the network's forward was replaced by a function of no module: write a module around "
            "the network, whose forward names the inputs."
        )
    single = copy.copy(module)
    own = {buffer: inputs[other].detach() for other, buffer in held.items()}
    single._buffers = {**module._buffers, **own}
    single._non_persistent_buffers_set = {*module._non_persistent_buffers_set, *own}  # no weights
    single.forward = _OfOne(single, name, held, forward)
    return single


@dataclass
class _OfOne:
    """The forward of one input. A class, as it travels to other processes."""

    network: nn.Module
    name: str
    held: dict[str, str]
    forward: Callable[..., Any]

    def __call__(self, x: Tensor) -> Any:
        given = {other: getattr(self.network, buffer) for other, buffer in self.held.items()}
        for other, value in given.items():
            if len(value) == 1:
                given[other] = value.expand(x.shape[0], *value.shape[1:])
        return self.forward(self.network, **{**given, self.name: x})


def holding(model: Model, others: dict[str, Tensor]) -> Model:
    """The network as one of photos alone: its first input that is not among the others.

    Args:
        others: inputs by the names of the forward's arguments, of one sample, (1, ...).

    Raises:
        InputError: they are not the network's, not of one sample, or all that it has.
    """
    name = of_the_photo(model.module, others)
    if more := {other: tuple(t.shape) for other, t in others.items() if not t.ndim or len(t) != 1}:
        raise InputError(f"the inputs {more} are held for all images: give one sample, (1, ...).")
    like = next(iter(others.values()))
    named(model.module, {name: like, **others})  # whether they fit
    return replace(model, module=of_one(model.module, {name: like, **others}, name))


def of_the_photo(module: nn.Module, others: Collection[str]) -> str:
    """The first input that is not named.

    Raises:
        InputError: all are.
    """
    free = [name for name in inspect.signature(module.forward).parameters if name not in others]
    if not free:
        raise InputError("every input was given by name: leave the photo's own out.")
    return free[0]


def _renewed(
    module: nn.Module, inputs: dict[str, Tensor], name: str
) -> Callable[[], nn.Module | None]:
    """Gives ``of_one`` while the module, which it does not hold, is there."""
    known = weakref.ref(module)

    def network() -> nn.Module | None:
        found = known()
        return None if found is None else of_one(found, inputs, name)

    return network
