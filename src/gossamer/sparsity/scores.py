"""What a weight is worth by itself: its magnitude, that magnitude within its layer, or nothing but chance."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from gossamer.errors import ConfigError
from gossamer.plugins import named_function
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


Score: TypeAlias = Callable[[Sequence[Target], Draws], dict[str, Tensor]]

SCORES: Mapping[str, Score] = {
    "magnitude": magnitude,
    "relative": relative,
    "random": random,
}


def scoring(name: str) -> Score:
    """Return the score of a name, or what a user's "package.module:factory" makes; raises ConfigError."""
    return named_function("score", name, SCORES, "score(layers, draws) -> tensors by layer")


def score(name: str, layers: Sequence[Target], draws: Draws) -> dict[str, Tensor]:
    """Return the scores of all layers, each >= 0 and in its kernel's shape; name: as in `scoring`.

    Raises ConfigError for an unknown name, and for scores that are not of these layers and shapes, or no numbers.
    """
    found = scoring(name)(layers, draws)
    wanted = {layer.name: tuple(layer.weight.shape) for layer in layers}
    given = {layer: tuple(values.shape) for layer, values in found.items()}
    if given != wanted:
        raise ConfigError(f"score {name}", expected=f"scores of {wanted}", got=given, remedy="mend what it returns")
    if name not in SCORES and not all(bool((values >= 0).all()) for values in found.values()):
        raise ConfigError(
            f"score {name}",
            expected="numbers >= 0, the highest of which are kept",
            got="others among them",
            remedy="take the absolute value, or move them above 0",
        )
    return found
