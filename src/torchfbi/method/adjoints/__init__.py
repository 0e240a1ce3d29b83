"""The adjoints: one small function an operator, found by ATen overload."""

from torchfbi.method.adjoints import (
    activations,
    attention,
    functions,
    linear,
    places,
    pointwise,
    pooling,
    shape,
)
from torchfbi.method.adjoints.registry import (
    Adjoint,
    Site,
    adjoint,
    find,
    is_held,
    is_tensor,
    operators,
    receivers,
    tensor_arguments,
)
from torchfbi.method.adjoints.shape import SHAPE_ONLY

__all__ = [
    "SHAPE_ONLY",
    "Adjoint",
    "Site",
    "activations",
    "adjoint",
    "attention",
    "find",
    "functions",
    "is_held",
    "is_tensor",
    "linear",
    "operators",
    "places",
    "pointwise",
    "pooling",
    "receivers",
    "shape",
    "tensor_arguments",
]
