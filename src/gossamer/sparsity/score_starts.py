"""With what does a search for a subnetwork begin? The frozen weights it chooses from, and the first scores."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gossamer.seeding import Draws
from gossamer.sparsity.targets import fan_in


def plain(weight: Tensor, density: float) -> Tensor:
    """Return the weights as they stand."""
    del density
    return weight


def binary(weight: Tensor, density: float) -> Tensor:
    """Return the signs of the weights, -1 and +1 without scale (Liu et al., NeurIPS 2022)."""
    del density
    return torch.where(weight < 0, -1.0, 1.0).to(weight)


def signed_constant(weight: Tensor, density: float) -> Tensor:
    """Return sign * sqrt(2 / fan_in) (Ramanujan et al., CVPR 2020)."""
    return binary(weight, density) * math.sqrt(2.0 / fan_in(weight))


def scaled_signed_constant(weight: Tensor, density: float) -> Tensor:
    """Return sign * sqrt(2 / (fan_in * density)); density: of the whole network, not of the layer (Liu et al.)."""
    return binary(weight, density) * math.sqrt(2.0 / (fan_in(weight) * density))


FROZEN_WEIGHTS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "plain": plain,
    "binary": binary,
    "signed-constant": signed_constant,
    "scaled-signed-constant": scaled_signed_constant,
}


def from_weights(weight: Tensor, bound: float, draws: Draws) -> Tensor:
    """Return sqrt(6 / fan_in) * w / max|w| (Sehwag et al., NeurIPS 2020); zeros where every weight is zero."""
    del bound, draws
    largest = weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny)
    return math.sqrt(6.0 / fan_in(weight)) * weight / largest


def kaiming_uniform(weight: Tensor, bound: float, draws: Draws) -> Tensor:
    """Return draws of U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)) (Ramanujan et al., CVPR 2020)."""
    del bound
    return uniform(weight, 1.0 / math.sqrt(fan_in(weight)), draws)


def uniform(weight: Tensor, bound: float, draws: Draws) -> Tensor:
    """Return draws of U(-bound, bound), the same in every layer (Liu et al., NeurIPS 2022)."""
    return (bound * (2.0 * draws.uniform(weight.shape) - 1.0)).to(weight)


FIRST_SCORES: Mapping[str, Callable[[Tensor, float, Draws], Tensor]] = {
    "from-weights": from_weights,
    "kaiming-uniform": kaiming_uniform,
    "uniform": uniform,
}
