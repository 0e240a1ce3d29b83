"""Adjoints of attention: the weights are held constant, the values get the signal.

With its weights A held, attention A V is a linear layer of the values V, and its adjoint is A^T s:
how information moves is taken as given, and what was moved is asked for. So the softmax needs no
adjoint, whose own would mix the reasons for looking somewhere into what was seen there. Sources:
Ali et al. 2022, "XAI for Transformers: better explanations through conservative propagation"
(attention and layer norm detached); Achtibat et al. 2024, "AttnLRP" (the value path's linear rule);
Mehri et al. 2025, "LibraGrad" (the same for gradients, with gates held).

Which of a product's two factors are weights is decided once, by ``torchfbi.capture.holding``.
"""

from __future__ import annotations

import math
import re
from string import ascii_letters

import torch
from torch import Tensor, fx

from torchfbi.method.adjoints.registry import Site, adjoint, is_held, tensor_arguments

aten = torch.ops.aten

PRODUCTS = (aten.matmul.default, aten.bmm.default, aten.einsum.default)
"""Operators that multiply two tensors and sum."""

_QUERIES_AT_A_TIME = 1024
"""So that a long row of tokens never needs its whole matrix of weights."""


def the_free_factor(node: fx.Node) -> list[fx.Node]:
    """The one factor that is not held; none where two are free, so that the product is refused."""
    free = [factor for factor in tensor_arguments(node) if not is_held(factor)]
    return free if len(free) == 1 else []


@adjoint(aten.matmul.default, aten.bmm.default, keeps=("inputs",), receivers=the_free_factor)
def matmul(s: Tensor, at: Site, x: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """s Y^T or X^T s, with the other factor held."""
    first, _ = (factor in the_free_factor(at.node) for factor in tensor_arguments(at.node))
    rows, columns = (x[None] if x.ndim == 1 else x), (y[:, None] if y.ndim == 1 else y)
    s = s.unsqueeze(-1) if y.ndim == 1 else s
    s = s.unsqueeze(-2) if x.ndim == 1 else s
    if first:
        return (s @ columns.mT).sum_to_size(rows.shape).reshape(x.shape), None
    return None, (rows.mT @ s).sum_to_size(columns.shape).reshape(y.shape)


@adjoint(aten.einsum.default, keeps=("inputs",), receivers=the_free_factor)
def einsum(
    s: Tensor, at: Site, equation: str, tensors: list[Tensor], *, path: list[int] | None = None
) -> list[Tensor | None]:
    """The same sum with the signal in place of the operand that is not held."""
    operands, result = _subscripts(at.node)
    found: list[Tensor | None] = []
    for i, (source, letters) in enumerate(zip(tensor_arguments(at.node), operands, strict=True)):
        if is_held(source):
            found.append(None)
            continue
        others = [(o, t) for j, (o, t) in enumerate(zip(operands, tensors, strict=True)) if j != i]
        for dim, letter in enumerate(letters):
            if letter in letters[:dim]:  # a diagonal, as a product with the identity
                taken = "".join([*operands, letters])
                unused = next(new for new in ascii_letters if new not in taken)
                letters = letters[:dim] + unused + letters[dim + 1 :]
                size = tensors[i].shape[dim]
                others.append((letter + unused, torch.eye(size, dtype=s.dtype, device=s.device)))
        known = {*result, *"".join(o for o, _ in others)}
        kept = "".join(letter for letter in letters if letter in known)
        formula = ",".join([result, *(o for o, _ in others)]) + "->" + kept
        back = torch.einsum(formula, s, *(t for _, t in others))
        for dim, letter in enumerate(letters):
            if letter not in known:  # summed over alone: the same for each entry
                back = back.unsqueeze(dim).repeat_interleave(tensors[i].shape[dim], dim)
        found.append(back.sum_to_size(tensors[i].shape))
    return found


def _subscripts(node: fx.Node) -> tuple[list[str], str]:
    """The letters of each operand and of the result, with letters for the dots."""
    equation = re.sub(r"\s", "", str(node.args[0]))
    left, arrow, right = equation.partition("->")
    operands = left.split(",")
    tensors = tensor_arguments(node)
    unused = [chr(code) for code in range(ord("A"), ord("z") + 1) if chr(code).isalpha()]
    unused = [letter for letter in unused if letter not in equation]
    ranks = [
        t.meta["val"].ndim - len(o.replace("...", ""))
        for o, t in zip(operands, tensors, strict=True)
        if "..." in o
    ]
    dots = "".join(unused[: max(ranks, default=0)])
    filled = [
        o.replace("...", dots[len(dots) - (t.meta["val"].ndim - len(o.replace("...", ""))) :])
        for o, t in zip(operands, tensors, strict=True)
    ]
    if arrow:
        return filled, right.replace("...", dots)
    letters = "".join(operands).replace(".", "")
    return filled, dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))


def the_values(node: fx.Node) -> list[fx.Node]:
    """The values of an attention."""
    return [value for value in tensor_arguments(node)[2:3] if not is_held(value)]


@adjoint(aten.scaled_dot_product_attention.default, keeps=("inputs",), receivers=the_values)
def attention(
    s: Tensor,
    at: Site,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[None, None, Tensor]:
    """A^T s. The weights, which a fused kernel never shows, are computed again."""
    groups = query.shape[-3] // value.shape[-3] if enable_gqa else 1
    if groups > 1:
        key = key.repeat_interleave(groups, -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    length, back = query.shape[-2], torch.zeros_like(s[..., :1, :])
    for start in range(0, length, _QUERIES_AT_A_TIME):
        rows = slice(start, min(length, start + _QUERIES_AT_A_TIME))
        scores = (query[..., rows, :] * scale) @ key.mT
        if causal:
            later = torch.ones(length, key.shape[-2], dtype=torch.bool, device=s.device).triu(1)
            scores = scores.masked_fill(later[rows], -math.inf)
        if mask is not None:
            part = mask[..., rows, :] if mask.shape[-2] == length else mask
            if mask.dtype == torch.bool:
                scores = scores.masked_fill(~part, -math.inf)
            else:
                scores = scores + part
        back = back + aten._safe_softmax.default(scores, -1).mT @ s[..., rows, :]
    if groups > 1:  # each head of the values spoke to several heads of queries
        back = back.reshape(*back.shape[:-3], -1, groups, *back.shape[-2:]).sum(-3)
    return None, None, back.sum_to_size(value.shape)
