"""What the walk holds constant is told once and written into the graph, as ``detach``.

A product of two activations has no adjoint of its own, unless one of the two is known to be
*weights*: then it is held, and the other, the values, gets the signal. Weights are known by what
made them, never by their place:

1. what carries the image only through softmaxes, as attention's weights do, however they are
   masked, mixed or scaled afterwards: softmax(Q K^T + B) V. A softmax that no values are
   multiplied with (mixture weights of fixed vectors, the expected position of a heatmap) carries
   the answer itself. It is not held, and as a softmax has no adjoint it is refused by name.
2. the queries and keys of linear attention, f(Q) (f(K)^T V): f is a softmax of the keys alone, or
   one map such as ReLU on both, and not on the values (Katharopoulos et al. 2020; Shen et al.
   2021).
3. in a further product, what 2 found to be a query.
4. the input and output maps of a state space: softmax(D) B and C in C (softmax(D) B X), of which D,
   B and C are parts of one tensor (Lee et al. 2025, "EfficientViM"; held as in Jafari et al. 2024,
   "MambaLRP").

Whatever else is multiplied stays free on both sides; a matrix product of such factors is refused.
What depends on the batch size alone, a class token's copies say, is held as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from torchfbi.method.adjoints import SHAPE_ONLY, is_held, is_tensor, receivers, tensor_arguments
from torchfbi.method.adjoints.attention import PRODUCTS
from torchfbi.method.adjoints.pointwise import gated_arguments
from torchfbi.method.adjoints.shape import RESHAPES

aten = torch.ops.aten

_SOFTMAX = {aten.softmax.int, aten._softmax.default, aten._safe_softmax.default}
_KERNELS = {
    aten.relu.default,
    aten.elu.default,
    aten.softplus.default,
    aten.exp.default,
    aten.pow.Tensor_Scalar,
}
_ARRANGING = {
    *RESHAPES,
    aten.permute.default,
    aten.transpose.int,
    aten.slice.Tensor,
    aten.select.int,
    aten.expand.default,
    aten.constant_pad_nd.default,
    aten._to_copy.default,
    aten.to.dtype,
    # with a fixed number or tensor
    aten.add.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
}


def hold(graph: fx.Graph) -> None:
    """Put a ``detach`` behind all that is held constant, unless there is one."""
    carried = _carried(graph)
    _hold_constants(graph, carried)
    products = dict.fromkeys(node for node in graph.nodes if len(_factors(node)) == 2)
    weights = set[fx.Node]()  # what carries the image through softmaxes only
    queries = set[fx.Node]()
    for node in graph.nodes:
        if node not in carried:
            continue
        if node in products:
            _hold_weights(node, weights)
        through = receivers(node) or [n for n in tensor_arguments(node) if n in carried]
        if _is_softmax(node) or (through and all(n in weights for n in through)):
            weights.add(node)
    for node in products:
        queries.update(_hold_linear_attention(node))
    for node in products:
        _hold_queries(node, queries)
        _hold_state_space(node, products)


def _carried(graph: fx.Graph) -> set[fx.Node]:
    """The tensors that depend on the image's values."""
    found = set[fx.Node]()
    for node in graph.nodes:
        sources = () if node.target in SHAPE_ONLY else node.all_input_nodes
        depends = node.op == "placeholder" or any(source in found for source in sources)
        if depends and isinstance(node.meta.get("val"), Tensor | tuple | list):
            found.add(node)
    return found


def _hold_constants(graph: fx.Graph, carried: set[fx.Node]) -> None:
    for node in list(graph.nodes):
        uses = [user for user in node.users if user in carried]
        constant = node.op == "call_function" and is_tensor(node) and node not in carried
        if constant and uses and not is_held(node):
            _detach(node, uses)


def _detach(node: fx.Node, users: list[fx.Node]) -> None:
    with node.graph.inserting_after(node):
        held = node.graph.call_function(aten.detach.default, (node,))
    held.meta = dict(node.meta)
    for user in users:
        user.replace_input_with(node, held)


def _is_softmax(node: Any) -> bool:
    """One by name, or exp(x) / sum exp(x) spelled out."""
    if node.target is not aten.div.Tensor:
        return node.target in _SOFTMAX
    above, below = node.args[:2]
    if not isinstance(below, fx.Node) or _origin(above).target is not aten.exp.default:
        return False
    total = _origin(below)
    return total.target is aten.sum.dim_IntList and total.args[0] is above


def _factors(node: Any) -> list[fx.Node]:
    """What is multiplied, if it is a product."""
    if node.target in PRODUCTS or node.target is aten.mul.Tensor:
        return [factor for factor in tensor_arguments(node) if not is_held(factor)]
    return []


def _hold_weights(node: fx.Node, weights: set[fx.Node]) -> None:
    """Rule 1."""
    known = [factor for factor in _factors(node) if factor in weights]
    if len(known) == 1:
        _detach(known[0], [node])


def _hold_linear_attention(outer: fx.Node) -> Iterator[fx.Node]:
    """Rule 2; what was held as a query."""
    if outer.target is aten.mul.Tensor or len(_factors(outer)) != 2:
        return
    for query, context in _both_ways(_factors(outer)):
        inner = _origin(context)
        if inner.target not in PRODUCTS:
            continue
        for key, values in _both_ways(tensor_arguments(inner)):
            if _kernel(values) is None and _maps_keys(key, query):
                if not is_held(key):
                    _detach(key, [inner])
                yield _origin(query)
                _detach(query, [outer])
                return


def _maps_keys(key: fx.Node, query: fx.Node) -> bool:
    kernel = _kernel(key)
    if kernel in _SOFTMAX:  # of keys alone: a softmax of scores has had its queries
        return _origin(_origin(key).args[0]).target not in PRODUCTS
    return kernel is not None and not is_held(key) and kernel == _kernel(query)


def _hold_queries(node: fx.Node, queries: set[fx.Node]) -> None:
    """Rule 3, where nothing else tells which of the two is signal."""
    factors = _factors(node)
    if node.target is aten.mul.Tensor and len(gated_arguments(node)) < 2:
        return
    known = [factor for factor in factors if _origin(factor) in queries]
    if len(factors) == 2 and len(known) == 1:
        _detach(known[0], [node])


def _hold_state_space(inner: fx.Node, products: Iterable[fx.Node]) -> None:
    """Rule 4."""
    for maps, _ in _both_ways(_factors(inner)) if inner.target in PRODUCTS else []:
        weighed = _origin(maps)
        factors = tensor_arguments(weighed) if weighed.target is aten.mul.Tensor else []
        steps = [_origin(factor) for factor in factors if is_held(factor)]
        parts = [_origin(factor) for factor in factors if not is_held(factor)]
        if len(steps) != 1 or len(parts) != 1 or not _is_softmax(steps[0]):
            continue
        for outer in products:
            for query, states in _both_ways(_factors(outer)):
                of_one = _origin(query) is parts[0] is _origin(steps[0].args[0])
                if of_one and outer.target in PRODUCTS and _depends_on(states, inner):
                    _detach(query, [outer])
                    _detach(maps, [inner])
                    return


def _depends_on(node: fx.Node, other: fx.Node) -> bool:
    queue, seen = [node], set[fx.Node]()
    while queue:
        current = queue.pop()
        if current is other:
            return True
        if current not in seen:
            seen.add(current)
            queue += current.all_input_nodes
    return False


def _both_ways(pair: list[fx.Node]) -> list[tuple[fx.Node, fx.Node]]:
    return [(pair[0], pair[1]), (pair[1], pair[0])] if len(pair) == 2 else []


def _kernel(node: fx.Node) -> Any:
    """The function that made all entries of a tensor not negative, if one of ``_KERNELS`` did."""
    target = _origin(node).target
    return target if target in _KERNELS | _SOFTMAX else None


def _origin(node: Any) -> fx.Node:
    """The tensor of which ``node`` is an arrangement, or a multiple."""
    while node.target in _ARRANGING or node.target is aten.detach.default:
        sources = [source for source in tensor_arguments(node) if source.op != "get_attr"]
        if len(sources) != 1:
            break
        node = sources[0]
    return node
