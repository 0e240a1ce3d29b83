"""Memory for what is needed only until the next operator."""

from __future__ import annotations

import torch
from torch import Tensor


class Scratch:
    """Blocks of memory that are handed out again and again.

    The kernel clears new pages, which for a large feature costs several times the arithmetic on it.

    Args:
        kept: whether blocks are kept. If not, operators allocate what they return as usual.
    """

    def __init__(self, kept: bool = True) -> None:
        self._kept = kept
        self._blocks: dict[str, Tensor] = {}

    def like(self, tensor: Tensor, use: str, dtype: torch.dtype | None = None) -> Tensor | None:
        """Memory laid out as a tensor is, for an operator's ``out``.

        Args:
            use: what for; until the same is asked for again the memory is the caller's.

        Returns:
            The memory, whatever it held; None where the operator shall allocate.
        """
        if not self._kept:
            return None
        if not (tensor.is_contiguous() or tensor.movedim(1, -1).is_contiguous()):
            return None
        size, dtype = tensor.numel(), dtype or tensor.dtype
        block = self._blocks.get(use)
        if block is None or block.dtype != dtype or len(block) < size:
            self._blocks[use] = block = tensor.new_empty(size, dtype=dtype)
        return block[:size].as_strided(tensor.shape, tensor.stride())


NO_SCRATCH = Scratch(kept=False)
