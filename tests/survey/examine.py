"""One architecture, with random weights: captured, explained, and equal to what it should be?"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from survey import huggingface
from survey.names import family
from survey.reference import held_gradient
from torchfbi.capture.capture import capture
from torchfbi.errors import InputError, TorchFBIError, UnsupportedOperatorError, first_line
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.adjoints import tensor_arguments
from torchfbi.method.adjoints.attention import PRODUCTS
from torchfbi.method.graph import Graph
from torchfbi.method.maps import channel_dim
from torchfbi.method.settings import PRESETS, Settings
from torchfbi.models import load
from torchfbi.models.timm import import_timm
from torchfbi.models.untrained import shaken

aten = torch.ops.aten

SIDES = (64, 96, 128, 192, 224, 256)
"""Of the images, in pixels, the smallest that the network takes. Its own size comes last."""

MADE_FOR = (96, 112, 128)
"""Sides that a network of timm is made for, the smallest that it can be, where it can be."""

GAINS = (1.0, 0.7, 0.5)
"""Of the random weights, until the network is no longer chaotic."""

_RECURRENT = {"aten.lstm.input", "aten.gru.input"}

_STATISTICS = {
    aten.layer_norm.default,
    aten.rms_norm.default,
    aten.group_norm.default,
    aten.instance_norm.default,
}
_PRODUCTS = {aten.mul.Tensor, aten.div.Tensor, aten.convolution.default, aten.linear.default}
_ATTENTION = {aten.scaled_dot_product_attention.default, *PRODUCTS}
_SMOOTH = {
    aten.elu.default,
    aten.selu.default,
    aten.celu.default,
    aten.silu.default,
    aten.gelu.default,
    aten.hardswish.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.softplus.default,
    aten.mish.default,
    aten.pow.Tensor_Scalar,
}


@dataclass(frozen=True)
class Row:
    """What was found out about one architecture, in float64.

    Args:
        name: what ``torchfbi.load`` knows it by.
        family: the module that defines it.
        kind: "convolution"; else what it has that no convolutional network has: "attention",
            a product that holds one of its factors, "recurrence" (always refused) or "token
            mixing", a dense layer across positions.
        parameters: their number.
        side: of the square images it was examined with, in pixels.
        captured: whether there is a graph of it.
        seconds: of processor time that its capture took.
        explained: the presets that gave finite values for a batch of two.
        logits_error: largest difference between the graph's logits and the module's, as a share
            of the largest logit.
        piecewise_linear: it has no smooth activation function, no statistics of the activations
            and no product of two of them.
        holds: the walk holds statistics or a gate constant, so that ``plain`` is not the
            gradient on purpose.
        gradient_error: the largest difference between ``plain`` and autograd's gradient, as a
            share of the largest gradient; if it holds something, with that detached.
        refused: why not, or "".
        missing: its operators without an adjoint, and how many there are of each.
    """

    name: str
    family: str
    kind: str = "convolution"
    parameters: int = 0
    side: int = 0
    captured: bool = False
    seconds: float = 0.0
    explained: tuple[str, ...] = ()
    logits_error: float | None = None
    piecewise_linear: bool = False
    holds: bool = False
    gradient_error: float | None = None
    refused: str = ""
    missing: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Row:
        """The inverse of ``to_dict``."""
        return cls(**{**plain, "explained": tuple(plain["explained"])})


def examine(name: str, seed: int = 0, **options: Any) -> Row:
    """Build an architecture with random weights and try everything on it.

    Args:
        name: ``"torchvision:resnet50"``, ``"timm:resnet50"``, ``"transformers:vit"``.
        seed: of the weights and the images.
        options: of timm's builder, such as fewer blocks.

    Raises:
        ModelError: there is no such architecture, or its library is missing.
    """
    with torch.random.fork_rng(devices=[]), _InDouble():
        torch.manual_seed(seed)
        module, own = _build(name, options)
        module = module.double()
        found: dict[str, Any] = {"name": name, "family": family(name)}
        found["parameters"] = sum(p.numel() for p in module.parameters())
        try:
            # Some of transformers' write to themselves what fits the images they are tried with.
            x = images(module, own, () if name.startswith("transformers:") else SIDES)
            for gain in GAINS:
                if settled(shaken(module, gain), x):
                    break
            found["side"] = x.shape[-1]
            start = time.process_time()
            graph = capture(module, x)
            found["seconds"] = round(time.process_time() - start, 2)
        except UnsupportedOperatorError as error:
            missing = {operator: len(layers) for operator, layers in error.operators.items()}
            kind = "recurrence" if _RECURRENT & missing.keys() else "convolution"
            reason = "operators without an adjoint"
            return Row(**found, kind=kind, refused=reason, missing=missing)
        except TorchFBIError as error:
            return Row(**found, refused=first_line(error))
        return _tried(Row(**found, captured=True), module, x, graph)


class _InDouble(TorchFunctionMode):
    """Networks that compute norms and angles in single precision whatever their weights are do it
    in double: else nothing could be told from rounding."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func is Tensor.float:
                return args[0]
            if func is Tensor.to or "dtype" in kwargs:
                args, kwargs = tree_map(_doubled, (args, kwargs))
        return func(*args, **kwargs)


def _doubled(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


def _build(name: str, options: dict[str, Any]) -> tuple[nn.Module, int]:
    """The network, and the side of the images that it was made for."""
    library, _, member = name.partition(":")
    if library == "transformers":
        return huggingface.build(member)
    if library == "timm":
        for side in MADE_FOR:  # transformers take no other size than they were made for
            with contextlib.suppress(Exception):
                module = import_timm().create_model(member, img_size=side, **options)
                with torch.no_grad():
                    module.eval()(torch.randn(1, 3, side, side))
                return module.requires_grad_(False), side
        if options:
            return import_timm().create_model(member, **options).eval().requires_grad_(False), 224
    model = load(name, pretrained=False)
    return model.module, model.preprocess.size[0]


def settled(module: nn.Module, x: Tensor) -> bool:
    """Whether rounding stays rounding: a long row of random gates can make a network chaotic."""
    with torch.no_grad():
        return _distance(module(x * (1 + 1e-12)), module(x)) < 1e-7


def images(module: nn.Module, own: int, sides: Sequence[int] = SIDES) -> Tensor:
    """Two random images, float64, of the smallest side that the network takes.

    Args:
        own: the side that it was made for, tried last.
        sides: tried before, where they are smaller.

    Raises:
        InputError: it takes none, not even its own.
    """
    for side in sorted({*(s for s in sides if s < own), own}):
        x = torch.randn(2, 3, side, side, dtype=torch.float64)
        with contextlib.suppress(Exception), torch.no_grad():
            if torch.isfinite(module(x)).all():
                return x
    raise InputError(f"it takes no image of {own} pixels or less")


def _tried(row: Row, module: nn.Module, x: Tensor, graph: Graph) -> Row:
    with torch.no_grad():
        expected = module(x)
    found, error = {}, None
    for preset in PRESETS:
        found[preset], logits = ForwardBackward(module, x, Settings.from_preset(preset))(x)
        error = _distance(logits, expected)
    explained = [preset for preset, values in found.items() if values.isfinite().all()]
    path = [node for node in graph.nodes if node in graph.path]
    holds = any(map(_holds, path))
    smooth = any(node.target in _SMOOTH for node in path)
    return replace(
        row,
        kind=_kind(path),
        explained=tuple(explained),
        logits_error=error,
        piecewise_linear=not holds and not smooth,
        holds=holds,
        gradient_error=_distance(found["plain"], _gradient(module, x, graph if holds else None)),
    )


def _gradient(module: nn.Module, x: Tensor, graph: Graph | None) -> Tensor:
    """What ``plain`` is to be: the top class's, by autograd; with what ``graph`` holds detached."""
    if graph is not None:
        return held_gradient(graph, x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module(leaf).amax(1).sum(), leaf)
    return gradient


def _distance(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def _kind(path: list[fx.Node]) -> str:
    if any(node.target in _ATTENTION and _holds(node) for node in path):
        return "attention"
    return "token mixing" if any(map(_mixes_tokens, path)) else "convolution"


def _holds(node: fx.Node) -> bool:
    factors = [a for a in tensor_arguments(node) if a.op != "get_attr"]
    multiplies = node.target in _PRODUCTS or node.target in _ATTENTION
    return node.target in _STATISTICS or (multiplies and len(factors) > 1)


def _mixes_tokens(node: fx.Node) -> bool:
    """A dense layer along an axis that counts positions, not feature maps."""
    if node.target is not aten.linear.default:
        return False
    source = tensor_arguments(node)[0]
    ndim = source.meta["val"].ndim
    return ndim > 2 and channel_dim(source) != ndim - 1
