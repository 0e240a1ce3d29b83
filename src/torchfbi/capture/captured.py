"""A captured network that gives its user's network's answers: the first is held against them.

A captured graph may be wrong about its network in ways that nobody can list. A hook was added, a
dictionary changed, weights were written to behind PyTorch's back; code asks whether it is being
exported, or throws dice. So nothing is concluded from what the network looks like: the first answer
of every explainer is held against the one that the network itself gives for the same images.
"""

from __future__ import annotations

import copy
import threading
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from torchfbi.capture import own
from torchfbi.capture.capture import capture
from torchfbi.errors import CaptureError, NonFiniteError
from torchfbi.method.graph import Graph

ROUNDING = 16.0
"""Two ways to compute the same may differ by so often what one of them differs from float64."""


class Captured(nn.Module):
    """The tensors of a captured network as buffers, and its forward pass.

    Args:
        module: a network of one input in evaluation mode, or an exported program; unchanged.
        example: an input tensor (N, C, ...) that tells the sizes.
        output: which output is wanted where the network returns several.
    """

    graph: Graph

    def __init__(
        self, module: nn.Module | ExportedProgram, example: Tensor, output: int | str | None
    ) -> None:
        super().__init__()
        # It knows the dtype and device that an input must have, and moves with .to().
        self.register_buffer("_like", example.new_zeros(()), persistent=False)
        self._source = Source(module, example, output)
        self._take(capture(module, example, output))

    def _take(self, graph: Graph) -> None:
        for name in [name for name in self._buffers if name.startswith("network_")]:
            delattr(self, name)
        self.graph = graph
        for name, tensor in graph.tensors.items():
            self.register_buffer(f"network_{name}", tensor)

    def _plan(self) -> None:
        """What follows from the graph; called again where that is another one."""
        raise NotImplementedError

    def _run(self, x: Tensor, watched: bool = True) -> dict[fx.Node, Any]:
        """The forward pass."""
        raise NotImplementedError

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        """Take the tensors: to write into ours would change all explainers of this network."""
        self._source.forget()
        assigned = {**metadata, "assign_to_params_buffers": True}
        super()._load_from_state_dict(state, prefix, assigned, *rest)

    def _held(self, x: Tensor, watched: bool) -> dict[fx.Node, Any]:
        """The forward pass, the first time held against the network's own.

        Where they differ the network was not what it looked like, and is captured again.

        Raises:
            NonFiniteError: NaN or infinity in the logits.
            CaptureError: the network answers otherwise than what was captured from it just now.
            InputError: the network itself fails for these images.
        """
        source = self._source
        if source.module is None:
            return self._finite(x, watched)
        with source.lock:  # its other threads wait until it is known what they walk
            values = self._finite(x, watched)
            if source.module is None or self._agrees(x, values[self.graph.logits]):
                source.forget()
                return values
            again, like = x.to(source.like), self.get_buffer("_like")
            self._take(capture(source.module, again, source.output, anew=True))
            if (like.dtype, like.device) != (again.dtype, again.device):
                self.to(like.device, like.dtype)  # as it was moved before
            self._plan()
            values = self._finite(x, watched)
            if not self._agrees(x, values[self.graph.logits]):
                raise CaptureError(
                    f"the network's own answer to this input of shape {tuple(x.shape)} is not the "
                    "one of the graph that was captured from it. Its code may be random in "
                    "evaluation mode (noise, dropout that is always on), depend on what it was "
                    "asked before, be changed by another thread meanwhile, or take another way "
                    "while torch.export traces it (torch.compiler.is_exporting)."
                )
            source.forget()
            return values

    def _finite(self, x: Tensor, watched: bool) -> dict[fx.Node, Any]:
        values = self._run(x, watched)
        if not torch.isfinite(values[self.graph.logits]).all():
            raise NonFiniteError(
                f"the network's output is NaN or infinite for this input in {x.dtype}: its "
                "weights may be damaged, or a wider dtype is needed."
            )
        return values

    def _agrees(self, x: Tensor, logits: Tensor) -> bool:
        """Whether the network gives these logits for these images, up to rounding."""
        source = self._source
        assert source.module is not None
        given = self.graph.finish(logits)
        right = own.answer(source.module, x.to(source.like), source.output).to(given)
        if right.numel() == given.numel():  # squeeze() drops the samples where there is but one
            right = right.reshape(given.shape)
        if own.agree(right, given):
            return True
        wide = copy.deepcopy(self).to("cpu", torch.float64)
        exact = wide._run(x.to(wide.get_buffer("_like")))[wide.graph.logits]
        rounding = (self.graph.finish(exact).to(given) - given).abs().max()
        return right.shape == given.shape and bool(
            (right - given).abs().max() <= ROUNDING * rounding
        )


class Source:
    """The network that an explainer was made of, until it has answered once.

    Args:
        module: the network; None if there is nothing to hold an answer against.
        example: an input as it takes them; only its dtype and device count.
        output: which output is wanted.
    """

    def __init__(
        self, module: nn.Module | ExportedProgram | None, example: Tensor, output: int | str | None
    ) -> None:
        self.module, self.output = module, output
        self.like = example.new_empty(())
        self.lock = threading.RLock()

    def forget(self) -> None:
        """It may be freed, and changed."""
        self.module = None

    def __deepcopy__(self, memo: Any) -> Source:
        return Source(self.module, self.like, self.output)

    def __reduce__(self) -> Any:  # the network does not travel
        return Source, (None, self.like, self.output)
