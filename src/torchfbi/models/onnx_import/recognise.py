"""Activation functions that exporters took apart, put together again.

An activation function is a feature, where the method selects; a product with a sigmoid is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from torchfbi.models.images import Array
from torchfbi.models.onnx_import.reading import File, Node


def recognise(file: File) -> None:
    """Replace x sigmoid(x) and its like by one operator, and drop what nothing uses any more."""
    network = _Network(file)
    for i, node in enumerate(file.nodes):
        for pattern in _PATTERNS:
            if found := pattern(network, node):
                file.nodes[i] = network.makers[node.outputs[0]] = found
                break
    _drop_unused(file)


class _Network:
    """Who computes what, and which values are single numbers."""

    def __init__(self, file: File) -> None:
        self.makers = {name: node for node in file.nodes for name in node.outputs}
        self.constants = file.constants
        self.same: dict[str, str] = {}
        for node in file.nodes:
            if node.operator == "Identity":
                source = node.inputs[0]
                self.same[node.outputs[0]] = self.same.get(source, source)

    def maker(self, name: str, operator: str) -> Node | None:
        """The node that computes a value, if it is of this type."""
        node = self.makers.get(self.same.get(name, name))
        return node if node is not None and node.operator == operator else None

    def number(self, name: str) -> float | None:
        """A constant that is a single number."""
        name = self.same.get(name, name)
        array, node = self.constants.get(name), self.makers.get(name)
        if array is None and node is not None:
            array = node.attributes.get("value") if node.operator == "Constant" else None
        return float(array.item()) if array is not None and array.size == 1 else None

    def scaled(self, name: str, factor: float) -> str | None:
        """The x of a value that is x times, or divided by the inverse of, a number."""
        if node := self.maker(name, "Mul"):
            for x, c in (node.inputs, node.inputs[::-1]):
                if _close(self.number(c), factor):
                    return x
        node = self.maker(name, "Div")
        if node and _close(self.number(node.inputs[1]), 1 / factor):
            return node.inputs[0]
        return None

    def raised(self, name: str, summand: float) -> str | None:
        """The x of a value that is x plus a number."""
        if node := self.maker(name, "Add"):
            for x, c in (node.inputs, node.inputs[::-1]):
                if _close(self.number(c), summand):
                    return x
        return None


def _close(number: float | None, expected: float) -> bool:
    return number is not None and math.isclose(number, expected, rel_tol=1e-5)


def _gated(network: _Network, node: Node) -> Node | None:
    """x times a gate of x."""
    if node.operator != "Mul" or len(node.inputs) != 2:
        return None
    for x, gate in (node.inputs, node.inputs[::-1]):
        if (made := network.maker(gate, "Sigmoid")) and made.inputs[0] == x:
            return replace(node, operator="Silu", inputs=(x,))
        if (made := network.maker(gate, "HardSigmoid")) and made.inputs[0] == x:
            usual = made.attributes.get("beta", 0.5) == 0.5
            if usual and _close(made.attributes.get("alpha", 0.2), 1 / 6):
                return replace(node, operator="HardSwish", inputs=(x,))
        if (
            (made := network.maker(gate, "Tanh"))
            and (inner := network.maker(made.inputs[0], "Softplus"))
            and inner.inputs[0] == x
        ):
            return replace(node, operator="Mish", inputs=(x,))
    return None


def _hard_swish(network: _Network, node: Node) -> Node | None:
    """x relu6(x + 3) / 6, in its three orders."""
    x = None
    if whole := network.scaled(node.outputs[0], 1 / 6):
        if product := network.maker(whole, "Mul"):
            x = _product_with(network, product, lambda gate: _relu6_of(network, gate))
    elif node.operator == "Mul" and len(node.inputs) == 2:

        def sixth(gate: str) -> str | None:
            inner = network.scaled(gate, 1 / 6)
            return inner and _relu6_of(network, inner)

        x = _product_with(network, node, sixth)
    return replace(node, operator="HardSwish", inputs=(x,), attributes={}) if x else None


def _relu6_of(network: _Network, name: str) -> str | None:
    node = network.maker(name, "Clip")
    if node is None:
        return None
    limits = [node.attributes.get("min"), node.attributes.get("max")]
    limits = [network.number(c) for c in node.inputs[1:]] or limits
    return network.raised(node.inputs[0], 3.0) if limits == [0.0, 6.0] else None


def _gelu(network: _Network, node: Node) -> Node | None:
    """x / 2 (1 + erf(x / sqrt 2)), in its three orders."""

    def erf_of(gate: str) -> str | None:
        inner = network.raised(gate, 1.0)
        erf = network.maker(inner, "Erf") if inner else None
        return network.scaled(erf.inputs[0], math.sqrt(0.5)) if erf else None

    def half_erf_of(gate: str) -> str | None:
        inner = network.scaled(gate, 0.5)
        return inner and erf_of(inner)

    x = None
    if whole := network.scaled(node.outputs[0], 0.5):
        if product := network.maker(whole, "Mul"):
            x = _product_with(network, product, erf_of)
    elif node.operator == "Mul" and len(node.inputs) == 2:
        x = _product_with(network, node, half_erf_of)
        for half, gate in (node.inputs, node.inputs[::-1]):
            if x is None and (source := network.scaled(half, 0.5)) and erf_of(gate) == source:
                x = source
    return replace(node, operator="Gelu", inputs=(x,), attributes={}) if x else None


def _product_with(
    network: _Network, product: Node, source: Callable[[str], str | None]
) -> str | None:
    """The x of a product x times a gate whose source is x."""
    for x, gate in (product.inputs, product.inputs[::-1]):
        if source(gate) == x:
            return x
    return None


def _strided(network: _Network, node: Node) -> Node | None:
    """Entries picked from a flat tensor by 0, 1, 2...: only its shape changes.

    So torch.export writes the mean over all pixels of a channels-last tensor; the table of
    indices depends on the batch size, and a reshape does not.
    """
    flat = network.maker(node.inputs[0], "Reshape") if node.operator == "Gather" else None
    if flat is None or network.number(flat.inputs[1]) != -1:
        return None
    steps: list[float | None] = []
    table: Array = np.zeros(())
    queue = [node.inputs[1]]
    for name in queue:  # which grows; a sum of sums of itself would do so without end
        if len(queue) > 32:
            return None
        if name in network.constants:
            table = table + network.constants[name]
        elif sum_ := network.maker(name, "Add"):
            queue += sum_.inputs
        else:
            steps.append(_step_of_range(network, name))
    per_sample = table.ndim > 0 and (not steps or (steps == [table.size] and len(table) == 1))
    if not per_sample or not np.array_equal(table.ravel(), np.arange(table.size)):
        return None
    shape = f"{node.outputs[0]} shape"
    network.constants[shape] = np.array([-1, *table.shape[1:]])
    return replace(node, operator="Reshape", inputs=(flat.inputs[0], shape), attributes={})


def _step_of_range(network: _Network, name: str) -> float | None:
    """The step of 0, step, 2 step... along the first dimension."""
    column = network.maker(name, "Unsqueeze")
    product = network.maker(column.inputs[0], "Mul") if column else None
    numbers = network.maker(product.inputs[0], "Range") if product else None
    if not numbers or not product or not column:
        return None
    start, _, delta = (network.number(i) for i in numbers.inputs)
    axes = network.constants.get(column.inputs[-1], np.zeros(1))
    plain = (start, delta) == (0, 1) and list(axes) == list(range(1, axes.size + 1))
    return network.number(product.inputs[1]) if plain else None


_PATTERNS = (_gated, _hard_swish, _gelu, _strided)


def _drop_unused(file: File) -> None:
    used = set(file.outputs)
    kept = []
    for node in reversed(file.nodes):
        if used.intersection(node.outputs):
            used.update(node.inputs)
            kept.append(node)
    file.nodes = kept[::-1]
    file.constants = {name: v for name, v in file.constants.items() if name in used}
