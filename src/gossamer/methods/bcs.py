"""Bayesian connectivity sampling (Ozdenizci & Legenstein, ICML 2021): one phase whose sparsifier rewires every step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.errors import ConfigError
from gossamer.sparsity import ConnectivitySampling
from gossamer.sparsity.budgets import check_density
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase

# Published initial shares of weights, by family; every other layer starts with density / 2.
_RESNET = {"conv1.weight": 0.6, "layer1.*": 0.2, "fc.weight": 0.6}
_WIDERESNET = {"conv1.weight": 0.6, "layer1.*": 0.1, "fc.weight": 0.6}
_VGG = {"block1.*": 0.6, "block2.*": 0.2, "dense.out.weight": 0.6}
_ENDS = {"conv1.weight": 0.6, "fc.weight": 0.6}

INITIAL: Mapping[str, Mapping[str, float]] = {
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "wideresnet28": _WIDERESNET,
    "vgg16": _VGG,
    # Not published with this method; read by analogy.
    "resnet20": _RESNET,
    "wideresnet20": _RESNET,
    "wideresnet": _WIDERESNET,
    "preact-resnet18": _RESNET,
    "mobilenetv2": _ENDS,
}

_DECAY = {"natural": 1e-4, "adversarial": 1e-3, "mixed-batch": 1e-3, "trades": 5e-4, "mart": 5e-4}


@dataclass(frozen=True, kw_only=True)
class BCS:
    """density: share of weights kept; sigma: noise per unit learning rate.

    initial: pattern of layer names -> share of weights at the start; None: as published for the network, and
    density / 2 everywhere in a network it was not published for. strict: int(density * N) weights in what
    ships (as published, an initialisation above the budget only shrinks by attrition). reset_velocity: an ablation.
    penalty: what pulls magnitudes to zero, the optimiser's weight decay, or `l1`: lambda * sum(theta) over active
    weights, lambda = l1, and no decay (the supplement's table 4, where 1e-4 was best).
    Batch norm is torch's: its running variance is the unbiased one, where the published code's is biased.
    """

    density: float
    sigma: float = 1e-6
    initial: Mapping[str, float] | None = None
    strict: bool = False
    reset_velocity: bool = False
    penalty: Literal["weight-decay", "l1"] = "weight-decay"
    l1: float = 1e-4

    def __post_init__(self) -> None:
        check_density(self.density, "method.density")
        if not 0.0 <= self.sigma < math.inf:
            raise ConfigError(
                "method.sigma", expected="a finite number >= 0", got=self.sigma, remedy="write 1.0e-6, as published"
            )
        if not 0.0 <= self.l1 < math.inf:
            raise ConfigError(
                "method.l1", expected="a finite number >= 0", got=self.l1, remedy="write 1.0e-4, the best published"
            )
        for pattern, share in (self.initial or {}).items():
            if not 0.0 <= share <= 1.0:
                raise ConfigError(
                    f"method.initial.{pattern}",
                    expected="a share of the layer's weights in [0, 1]",
                    got=share,
                    remedy="write 0.6 to start with 60 % of them",
                )

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return decay-first SGD: lr 0.1, momentum 0.9, and the objective's published decay, none under l1."""
        decay = 0.0 if self.penalty == "l1" else _DECAY.get(objective, 5e-4)
        return OptimizerSpec(kind="decay-first-sgd", weight_decay=decay)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase with the rewiring sparsifier."""
        initial = INITIAL.get(model, {}) if self.initial is None else self.initial
        sparsifier = partial(
            ConnectivitySampling,
            density=self.density,
            sigma=self.sigma,
            initial=initial,
            strict=self.strict,
            reset_velocity=self.reset_velocity,
            l1=self.l1 if self.penalty == "l1" else 0.0,
            # A family's table also serves its variants.
            every_pattern_matches=self.initial is not None,
        )
        return (replace(base, sparsifier=sparsifier),)
