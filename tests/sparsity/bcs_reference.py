"""Bayesian connectivity sampling in NumPy, written from its published order of operations, without torch."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass
class Weights:
    """One layer: magnitudes, fixed signs, velocity."""

    theta: Array
    sign: Array
    velocity: Array = field(init=False)

    def __post_init__(self) -> None:
        self.velocity = np.zeros_like(self.theta)

    @property
    def effective(self) -> Array:
        """S * theta where theta > 0, else 0."""
        return np.where(self.theta > 0, self.sign * self.theta, np.float32(0))


def step(
    layers: list[Weights], gradients: list[Array], *, lr: float, decay: float, noise: list[Array], momentum: float = 0.9
) -> list[Array]:
    """Take one step up to the draw, in place; return which weights were active before it.

    gradients: dL/dw; noise: draws of N(0, sigma^2), used where a weight was active before the step.
    """
    before = [layer.theta > 0 for layer in layers]
    for layer, gradient, drawn, active in zip(layers, gradients, noise, before, strict=True):
        slope = np.where(active, layer.sign * gradient, np.float32(0))
        layer.theta = layer.theta * np.float32(1 - decay)
        layer.velocity = np.float32(momentum) * layer.velocity - np.float32(lr) * slope
        layer.theta = layer.theta + layer.velocity
        layer.theta = layer.theta + np.float32(lr) * drawn * active
    return before


def missing(layers: list[Weights], budget: int) -> int:
    """Return how many connections are drawn."""
    return max(0, budget - sum(int((layer.theta > 0).sum()) for layer in layers))


def revive(layer: Weights, positions: NDArray[np.bool_]) -> None:
    """Draw dormant weights."""
    assert not (layer.theta[positions] > 0).any()
    layer.theta[positions] = np.float32(1e-12)
