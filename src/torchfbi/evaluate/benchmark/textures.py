"""Backgrounds that show nothing: coloured noise with the spectrum of natural surfaces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def texture(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Noise whose amplitude falls with the spatial frequency f as f^-s.

    Photographs have s near 1 (Field 1987, Journal of the Optical Society of America A 4); here it
    lies between 1.2 and 2.4, from gravel to clouds. The frequency plane is stretched along a
    random direction, which gives grain like that of wood or water.

    Args:
        rng: every draw comes from it.
        shape: (height, width).

    Returns:
        uint8 (height, width, 3).
    """
    angle, stretch, slope = rng.uniform(0, np.pi), rng.uniform(1, 3), rng.uniform(1.2, 2.4)
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    frequency = np.hypot(along * stretch, across / stretch)
    amplitude = np.maximum(frequency, 1 / max(shape)) ** -slope
    amplitude[0, 0] = 0
    shared = rng.normal(size=shape)
    channels = []
    for _ in range(3):
        noise = shared * rng.uniform(0.3, 1) + rng.normal(size=shape) * 0.35
        grain = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real
        channels.append(rng.uniform(60, 200) + grain / grain.std() * rng.uniform(15, 35))
    return np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)
