"""Layer-wise relevance propagation by Zennit and by Captum, on the user's own modules.

Both libraries hook ``nn.Module`` layers, so that they run on a copy of the original network and
not on the captured graph, as their users run them. A convolution or dense layer that is called as
a function would silently have no rule: such networks are refused. What neither library has a rule
for (additions, gates) goes back as its gradient, which is theirs too.
"""

from __future__ import annotations

import copy
import importlib
import itertools
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from torchfbi.errors import CaptureError, needs
from torchfbi.evaluate.peers.method import Attribute
from torchfbi.evaluate.peers.network import graph_of
from torchfbi.models.torchvision import import_torchvision
from torchfbi.system.quiet import quiet

aten = torch.ops.aten

_AFFINE = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    nn.Linear,
)
_SHAPES = nn.Flatten, nn.Unflatten, nn.Identity, nn.ZeroPad2d
_KNOWN = nn.ReLU, nn.Tanh
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def zennit(composite: str) -> Attribute:
    """One of Zennit's composites, with batch norms merged into the layers before them.

    Args:
        composite: ``EpsilonPlusFlat`` or ``EpsilonGammaBox``, with the library's own parameters.
            The box of the latter reaches from the image's smallest to its largest value.

    Returns:
        A method that gives the relevance of the class's logit, (N, C, H, W); a CaptureError where
        layers are no modules or the network ends in a softmax, and a ModelError where Zennit is
        missing.
    """

    def attribute(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
        composites, attribution, canonizers = (
            _library(f"zennit.{part}", "zennit")
            for part in ("composites", "attribution", "canonizers")
        )
        network = _own_copy(module, x)
        merge = canonizers.NamedMergeBatchNorm([([a], b) for a, b in _norms_after(network)])
        values = []
        for image, number in zip(torch.split(x, 1), target.tolist(), strict=True):
            box: dict[str, Any] = {}
            if composite == "EpsilonGammaBox":
                box = {"low": torch.full_like(image, image.min().item()),
                       "high": torch.full_like(image, image.max().item())}  # fmt: skip
            rules = getattr(composites, composite)(canonizers=[merge], **box)

            def one_hot(logits: Tensor, number: int = number) -> Tensor:
                return nn.functional.one_hot(torch.tensor([number]), logits.shape[1]).to(logits)

            with attribution.Gradient(network, rules, attr_output=one_hot) as attributor:
                values.append(attributor(image.clone())[1].detach())
        return torch.cat(values)

    return attribute


def captum(module: nn.Module, x: Tensor, target: Tensor, seed: int) -> Tensor:
    """Captum's LRP with its default rules (epsilon everywhere), (N, C, H, W).

    Layers that it has no default for get one of its own, as its users set them: activations such as
    ReLU6 the identity, flattening and padding the epsilon rule, which is exact for them.

    Raises:
        CaptureError: Captum has no rule for a layer, or passes over one, or see ``zennit``.
        ModelError: Captum is missing.
    """
    library = _library("captum.attr", "captum")
    rules = _library("captum.attr._utils.lrp_rules", "captum")
    network = _own_copy(module, x)
    for name, part in network.named_modules():
        if isinstance(part, _AFFINE) and any(True for _ in part.children()):
            raise CaptureError(
                f"Captum's LRP passes over layers that hold other modules, as {name} does."
            )
        if isinstance(part, _SHAPES):
            cast(Any, part).rule = rules.EpsilonRule()
        elif type(part).__module__ == nn.ReLU.__module__ and not isinstance(part, _KNOWN):
            cast(Any, part).rule = rules.IdentityRule()
    try:
        with quiet():  # it warns of hooks, which are removed again
            values: Tensor = library.LRP(network).attribute(
                x.clone().requires_grad_(), target=target
            )
    except TypeError as error:
        raise CaptureError(f"Captum's LRP: {error}") from None
    return values.detach()


def _own_copy(module: nn.Module, x: Tensor) -> nn.Module:
    """A copy that libraries may hook and change.

    Raises:
        CaptureError: a convolution or dense layer is no module, or logits are not the output.
    """
    graph = graph_of(module, x)
    if graph.head is not None:
        raise CaptureError(
            f"this network ends in a {graph.head}: relevance is propagated from logits. Give a "
            "module without it."
        )
    network = copy.deepcopy(module)
    calls: list[nn.Module] = []
    hooks = [
        part.register_forward_hook(lambda part, _, __: calls.append(part))
        for part in network.modules()
        if isinstance(part, _AFFINE)
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    affine = (aten.convolution.default, aten.linear.default)
    there = sum(node.target in affine for node in graph.nodes)
    if there != len(calls):
        raise CaptureError(
            f"{there - len(calls)} of the {there} convolutions and dense layers of this network "
            "are no modules: hooks of a library for relevance propagation would miss them."
        )
    return network


def _norms_after(network: nn.Module) -> Iterator[tuple[str, str]]:
    """The names of layers and of the batch norms registered right behind them."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, (*_AFFINE, *_NORMS))]
    for (name, layer), (norm_name, norm) in itertools.pairwise(layers):
        behind = isinstance(layer, _AFFINE) and isinstance(norm, _NORMS)
        if behind and layer.weight.shape[0] == norm.num_features:
            yield name, norm_name


def _library(name: str, extra: str) -> Any:
    import_torchvision()  # Zennit imports it, and may need its operators declared
    with needs(f"torchfbi[{extra}]"):
        return importlib.import_module(name)
