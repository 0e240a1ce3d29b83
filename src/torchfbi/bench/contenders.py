"""What is timed. Each maker gets a task ready, untimed, and returns the call that is timed."""

from __future__ import annotations

import copy
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchfbi.bench.cases import Task
from torchfbi.errors import InputError, needs
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.export.explainer import Inputs, trace
from torchfbi.export.formats import FORMATS
from torchfbi.method.settings import Settings
from torchfbi.models.torchvision import import_torchvision
from torchfbi.system.quiet import quiet

Maker = Callable[[Task], Callable[[], Tensor]]

SETTINGS = {"FBI, contrast": Settings.contrast(), "FBI, paper": Settings.paper(tau=0.0)}
"""Ours. The paper's tau of 10 is meant for one network: on others it selects nothing, and would
be fast for the wrong reason."""


def forward(task: Task) -> Callable[[], Tensor]:
    """The network itself, as its user runs it, without gradients."""

    def run() -> Tensor:
        with torch.no_grad():
            return task.module(task.x)

    return run


def fbi(settings: Settings, *, low_memory: bool = False) -> Maker:
    """Forward once and walk back; the network was captured before."""

    def make(task: Task) -> Callable[[], Tensor]:
        explainer = ForwardBackward(task.module, task.x, settings, low_memory=low_memory)
        return lambda: explainer(task.x, task.target)[0]

    return make


def gradient(task: Task) -> Callable[[], Tensor]:
    """Of the probed logit, by autograd."""

    def run() -> Tensor:
        leaf = task.x.detach().requires_grad_()
        chosen = task.module(leaf).gather(1, task.target[:, None])
        return torch.autograd.grad(chosen.sum(), leaf)[0]

    return run


def guided_backprop(task: Task) -> Callable[[], Tensor]:
    """Captum's, which hooks the network's ReLU modules (and no other activation)."""
    method = _library("captum.attr").GuidedBackprop(task.module)

    def run() -> Tensor:
        with quiet():  # that there are hooks, for as long as it runs
            return method.attribute(task.x.detach().requires_grad_(), target=task.target)

    return run


def grad_cam(task: Task) -> Callable[[], Tensor]:
    """Captum's, at the last maps of the network, resized to the image."""
    captum = _library("captum.attr")
    method = captum.LayerGradCam(task.module, last_maps(task))
    sides = tuple(task.x.shape[2:])

    def run() -> Tensor:
        x = task.x.detach().requires_grad_()
        maps = method.attribute(x, target=task.target, relu_attributions=True)
        return captum.LayerAttribution.interpolate(maps, sides, "bilinear")

    return run


def last_maps(task: Task) -> nn.Module:
    """The part of the network that is the last to return maps of more than one position.

    Raises:
        InputError: there is none.
    """
    found: list[nn.Module] = []

    def note(part: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            found.append(part)

    hooks = [part.register_forward_hook(note) for part in task.module.modules()]
    try:
        forward(task)()
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise InputError("no part of the network returns maps, which Grad-CAM needs.")
    return found[-1]


def epsilon_plus_flat(task: Task) -> Callable[[], Tensor]:
    """Zennit's composite, on a copy that it may hook, with batch norms merged."""
    canonizer = _library("zennit.canonizers").SequentialMergeBatchNorm()
    composite = _library("zennit.composites").EpsilonPlusFlat(canonizers=[canonizer])
    network = copy.deepcopy(task.module)
    composite.register(network)  # its gradient is the relevance from here on
    return gradient(task._replace(module=network))


def _library(name: str) -> Any:
    if name.startswith("zennit"):
        import_torchvision()  # Zennit does so too, and may need its operators declared
    with needs(name.partition(".")[0]):
        return importlib.import_module(name)


def compiled(settings: Settings) -> Maker:
    """Ours as ``torchfbi export --to aoti --batch N`` compiles it: half a minute or more."""

    def make(task: Task) -> Callable[[], Tensor]:
        explainer = ForwardBackward(task.module, task.x, settings)
        aoti, question = FORMATS["aoti"], Inputs.of(task.x, task.target, settings)
        with tempfile.TemporaryDirectory() as folder, quiet("stdout", "stderr"):
            path = Path(folder) / "explainer.pt2"
            aoti.write(trace(explainer, task.x, len(task.x)), path, {})
            run = aoti.open(path)
        return lambda: run(question).values

    return make


OURS: dict[str, Maker] = {
    **{name: fbi(settings) for name, settings in SETTINGS.items()},
    "gradient": gradient,
}
PEERS: dict[str, Maker] = {
    "guided backprop": guided_backprop,
    "Grad-CAM": grad_cam,
    "EpsilonPlusFlat": epsilon_plus_flat,
}
COMPILED: dict[str, Maker] = {
    f"{name}, compiled": compiled(settings) for name, settings in SETTINGS.items()
}
LOW_MEMORY = "FBI, contrast, low memory"
MAKERS: dict[str, Maker] = {
    "forward": forward,
    **OURS,
    **COMPILED,
    LOW_MEMORY: fbi(Settings.contrast(), low_memory=True),
    **PEERS,
}
"""By name, in the order in which they are shown."""
