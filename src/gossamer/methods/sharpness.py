"""Sharpness in the space of scores: a mask search that takes its steps where nearby scores make the loss worst.

Source: "S2AP: Score-space Sharpness Minimization for Adversarial Pruning" (2025), as far as its abstract and reviews
tell; the step is adversarial weight perturbation (Wu et al., NeurIPS 2020) with scores in the place of weights.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn
from torch.nn.utils import parametrize

from gossamer.errors import ConfigError
from gossamer.sparsity import targets
from gossamer.training.phases import Phase
from gossamer.training.weight_perturbation import WeightPerturbation


def score_tensors(model: nn.Module) -> Sequence[nn.Parameter]:
    """Return the trainable scores of a model under a mask search: what takes the place of its weights there."""
    return [
        layer.parameter
        for layer in targets(model)
        if parametrize.is_parametrized(layer.module, "weight") and layer.parameter.requires_grad
    ]


def check_sharpness(gamma: float, warmup: int | None) -> None:
    """Raise ConfigError unless gamma is a share of a layer's norm in [0, 1), and a warm-up one of at least 0 epochs."""
    if not 0.0 <= gamma < 1.0:
        raise ConfigError(
            "method.score_sharpness",
            expected="a share of each layer's norm of scores in [0, 1)",
            got=gamma,
            remedy="write 0 for a plain search, or 0.01",
        )
    if warmup is not None and warmup < 0:
        raise ConfigError(
            "method.sharpness_warmup", expected="at least 0 epochs", got=warmup, remedy="leave it out for a quarter"
        )
    if warmup is not None and gamma == 0.0:
        raise ConfigError(
            "method.sharpness_warmup",
            expected="nothing without method.score_sharpness",
            got=warmup,
            remedy="write score_sharpness: 0.01, say, or leave both out",
        )


def with_sharpness(search: Phase, gamma: float, warmup: int | None = None) -> Phase:
    """Return a mask search whose scores of each layer are moved by gamma * |s| * g / |g| while its gradient is taken.

    warmup: plain epochs before; None: a quarter of the search, as the published 5 of 20. gamma 0: a plain search. A
    perturbation of weights that the recipe asked for is left to the phases that train weights. Raises ConfigError for a
    warm-up that the search does not outlive.
    """
    if gamma == 0.0:
        return replace(search, perturbation=None)
    if warmup is not None and warmup >= search.epochs:
        raise ConfigError(
            "method.sharpness_warmup",
            expected=f"fewer epochs than the search's {search.epochs}",
            got=warmup,
            remedy="leave it out for a quarter of them",
        )
    start = search.epochs // 4 if warmup is None else warmup
    return replace(search, perturbation=WeightPerturbation(gamma=gamma, start=start, which=score_tensors))
