"""What a weight is worth by itself: its magnitude, that magnitude within its layer, or nothing but chance."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gossamer.errors import ConfigError
from gossamer.seeding import Draws
from gossamer.sparsity.targets import Target


def magnitude(layers: Sequence[Target], draws: Draws) -> dict[str, Tensor]:
    """Score every weight by its absolute value."""
    del draws
    return {layer.name: layer.weight.detach().abs() for layer in layers}


def relative(layers: Sequence[Target], draws: Draws) -> dict[str, Tensor]:
    """Score every weight by its absolute value over the mean one of its layer (Li et al., 2020)."""
    return {
        name: values / values.mean().clamp_min(torch.finfo(values.dtype).tiny)
        for name, values in magnitude(layers, draws).items()
    }


def random(layers: Sequence[Target], draws: Draws) -> dict[str, Tensor]:
    """Score every weight by an independent U[0, 1): the control of every pruning study."""
    return {layer.name: draws.at(layer.name).uniform(layer.weight.shape).to(layer.weight.device) for layer in layers}


SCORES: Mapping[str, Callable[[Sequence[Target], Draws], dict[str, Tensor]]] = {
    "magnitude": magnitude,
    "relative": relative,
    "random": random,
}


def score(name: str, layers: Sequence[Target], draws: Draws) -> dict[str, Tensor]:
    """Return the named scores of all layers; raises ConfigError for an unknown name."""
    if name not in SCORES:
        raise ConfigError(
            "score", expected=f"one of {', '.join(SCORES)}", got=name, remedy="choose a score from the list"
        )
    return SCORES[name](layers, draws)
