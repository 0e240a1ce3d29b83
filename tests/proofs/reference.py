"""The paper, slowly: Balu et al., "A Forward-Backward Approach for Visualizing Information Flow
in Deep Networks", for one image and a network of the VGG kind. NumPy in float64, explicit loops.

Written from the text alone and shares no code with the library. What the text leaves open is
decided as in the design notes: section 2's masking and top maps stand at every ReLU output, the
threshold first; "total activation of the map" is the sum of its selected signal; of C maps
ceil(k C) are kept; an entry that no pooling window covers gets nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class Convolution:
    W: Array  # (maps out, maps in, height, width)
    b: Array
    stride: int
    padding: int

    def inputs(self, y: int, x: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(row in W, column in W, row of the input, column of the input) for an output pixel."""
        places = []
        for u, v in np.ndindex(*self.W.shape[2:]):
            row, column = y * self.stride + u - self.padding, x * self.stride + v - self.padding
            if 0 <= row < height and 0 <= column < width:
                places.append((u, v, row, column))
        return places

    def forward(self, a: Array) -> Array:
        height, width = (
            (n + 2 * self.padding - size) // self.stride + 1
            for n, size in zip(a.shape[1:], self.W.shape[2:], strict=True)
        )
        z = np.zeros((len(self.W), height, width))
        for o, y, x in np.ndindex(*z.shape):
            z[o, y, x] = self.b[o]
            for u, v, row, column in self.inputs(y, x, *a.shape[1:]):
                for i in range(len(a)):
                    z[o, y, x] += self.W[o, i, u, v] * a[i, row, column]
        return z

    def backward(self, z_hat: Array, a: Array, z: Array) -> Array:
        """Section 2, "Deconvolution": the adjoint, with the same filters and no bias."""
        a_hat = np.zeros(a.shape)
        for o, y, x in np.ndindex(*z_hat.shape):
            for u, v, row, column in self.inputs(y, x, *a.shape[1:]):
                for i in range(len(a)):
                    a_hat[i, row, column] += self.W[o, i, u, v] * z_hat[o, y, x]
        return a_hat


@dataclass
class ReLU:
    def forward(self, z: Array) -> Array:
        return np.where(z > 0, z, 0.0)

    def backward(self, a_hat: Array, z: Array, a: Array) -> Array:
        """Section 2: "The adjoint of the ReLU activation function is the ReLU itself"."""
        return np.where(a_hat > 0, a_hat, 0.0)


@dataclass
class MaxPool:
    size: int
    stride: int
    padding: int

    def window(self, y: int, x: int, height: int, width: int) -> list[tuple[int, int]]:
        top, left = y * self.stride - self.padding, x * self.stride - self.padding
        return [
            (row, column)
            for row in range(max(top, 0), min(top + self.size, height))
            for column in range(max(left, 0), min(left + self.size, width))
        ]

    def forward(self, a: Array) -> Array:
        height, width = ((n + 2 * self.padding - self.size) // self.stride + 1 for n in a.shape[1:])
        pooled = np.zeros((len(a), height, width))
        for i, y, x in np.ndindex(*pooled.shape):
            window = self.window(y, x, *a.shape[1:])
            pooled[i, y, x] = max(a[i, row, column] for row, column in window)
        return pooled

    def backward(self, pooled_hat: Array, a: Array, pooled: Array) -> Array:
        """Section 2, "Unpooling": a_up = min(a_p, a_hat_p), both replicated over the windows."""
        return np.minimum(self.replicate(pooled, a.shape), self.replicate(pooled_hat, a.shape))

    def replicate(self, pooled: Array, shape: tuple[int, ...]) -> Array:
        """Copied over the domain of the maximum and "averaged over the overlapping locations"."""
        total, copies = np.zeros(shape), np.zeros(shape)
        for i, y, x in np.ndindex(*pooled.shape):
            for row, column in self.window(y, x, *shape[1:]):
                total[i, row, column] += pooled[i, y, x]
                copies[i, row, column] += 1
        return np.where(copies > 0, total / np.maximum(copies, 1), 0.0)


@dataclass
class Flatten:
    def forward(self, a: Array) -> Array:
        return a.reshape(-1)

    def backward(self, flat_hat: Array, a: Array, flat: Array) -> Array:
        return flat_hat.reshape(a.shape)


@dataclass
class Dense:
    W: Array  # (units out, units in)
    b: Array

    def forward(self, a: Array) -> Array:
        """Section 2, "Dense layers": z = W a + b."""
        z = self.b.copy()
        for o, i in np.ndindex(*self.W.shape):
            z[o] += self.W[o, i] * a[i]
        return z

    def backward(self, z_hat: Array, a: Array, z: Array) -> Array:
        """Section 2, "Dense layers": a_hat = W^T (z_hat - b)."""
        a_hat = np.zeros(a.shape)
        for o, i in np.ndindex(*self.W.shape):
            a_hat[i] += self.W[o, i] * (z_hat[o] - self.b[o])
        return a_hat


Layer = Convolution | ReLU | MaxPool | Flatten | Dense


class Explanation(NamedTuple):
    """``features`` holds the selected signal at each ReLU's output, from the top layer down."""

    logits: Array
    values: Array
    features: list[Array]


def explain(layers: list[Layer], image: Array, c: int | None, tau: float, k: float) -> Explanation:
    """Figure 1: forward through the network, then back from class ``c`` (None: the predicted)."""
    a = [image]
    for layer in layers:
        a.append(layer.forward(a[-1]))
    z = a[-1]
    c = int(np.argmax(z)) if c is None else c
    features = []
    signal = seed(z, c)
    for layer, before, after in zip(layers[::-1], a[-2::-1], a[:0:-1], strict=True):
        if isinstance(layer, ReLU):
            signal = mask(signal, after, tau)
            if after.ndim == 3:
                signal = keep_top_maps(signal, k)
            features.append(signal)
        signal = layer.backward(signal, before, after)
    return Explanation(z, signal, features)


def seed(z: Array, c: int) -> Array:
    """Section 2, "Dense layers": max(z) for the class c, min(z) for the others."""
    z_hat = np.zeros(z.shape)
    for i in range(len(z)):
        z_hat[i] = max(z) if i == c else min(z)
    return z_hat


def mask(a_hat: Array, a: Array, tau: float) -> Array:
    """Section 2, "Forward-Backward masking": keep what has a_hat * a > tau. The feature goes on
    through the adjoint of its ReLU, so that only positive signals are kept."""
    kept = np.zeros(a.shape)
    for place in np.ndindex(*a.shape):
        if a_hat[place] * a[place] > tau and a_hat[place] > 0:
            kept[place] = a_hat[place]
    return kept


def keep_top_maps(a_hat: Array, k: float) -> Array:
    """Section 2, "Contributing feature maps": those of the largest total activation."""
    totals = [sum(one_map.flat) for one_map in a_hat]
    ranking = sorted(range(len(totals)), key=lambda i: -totals[i])
    kept = np.zeros(a_hat.shape)
    for i in ranking[: math.ceil(k * len(totals))]:
        kept[i] = a_hat[i]
    return kept
