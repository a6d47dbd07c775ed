"""Robust ADMM pruning (Ye et al., ICCV 2019): dense weights drawn towards a sparse set, then retrained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs, check_rate
from gossamer.sparsity import HeldMask
from gossamer.sparsity.admm import ADMM, Interval
from gossamer.sparsity.budgets import Budget, BudgetSpec, Shapes, divide, total_budget
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.sparsity.patterns import PatternSpec
from gossamer.sparsity.patterns import pattern as make_pattern
from gossamer.sparsity.sets import Sparse
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, Phase
from gossamer.training.schedules import Schedule, Steps


@dataclass(frozen=True, kw_only=True)
class Sawtooth:
    """Tenths of the base rate, thrice in each period and then from the start again; period: epochs."""

    period: int

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Return 0.1 ** (thirds of the period that have passed), whole epochs counted."""
        offset = step // per_epoch % self.period
        return 0.1 ** (3 * offset // self.period)


@dataclass(frozen=True, kw_only=True)
class DenseLinear:
    """Linear layers keep everything, and convolutions share what the density of the whole leaves, by another budget."""

    then: Budget

    def __call__(self, shapes: Shapes, density: float) -> dict[str, int]:
        """Return how many weights each layer keeps; raises ConfigError where linear layers alone exceed the whole."""
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        linear = {name: size for name, size in sizes.items() if len(shapes[name]) == 2}
        rest = {name: shape for name, shape in shapes.items() if name not in linear}
        left = total_budget(sizes, density) - sum(linear.values())
        if not rest and density < 1.0:
            raise ConfigError(
                "method.linear",
                expected="pruned in a network of linear layers alone",
                got="dense: nothing else could be pruned",
                remedy="write linear: pruned",
            )
        if rest and left < 1:
            raise ConfigError(
                "method.density",
                expected=f"room for {sum(linear.values()):,} weights of linear layers, which stay dense",
                got=f"{total_budget(sizes, density):,} of {sum(sizes.values()):,} weights",
                remedy="raise it, or write linear: pruned",
            )
        shared = left / sum(sizes[name] for name in rest) if rest else 1.0
        convolutions = divide(self.then, rest, min(1.0, shared)) if rest else {}
        return {name: linear.get(name, convolutions.get(name, 0)) for name in sizes}


def constraint(pattern: PatternSpec, budget: BudgetSpec, linear: Literal["dense", "pruned"]) -> Sparse:
    """Return the set of weights in a pattern, linear layers kept out of it or not; raises ConfigError."""
    divided = make_budget(budget)
    return Sparse(pattern=make_pattern(pattern), budget=DenseLinear(then=divided) if linear == "dense" else divided)


@dataclass(frozen=True, kw_only=True)
class RobustADMM:
    """Three phases: dense training, ADMM towards the set, retraining of what is left.

    pattern: irregular, column, filter, or any other; budget: what each layer keeps; linear: whether linear layers stay
    dense (as published) or are pruned like convolutions; density: of the whole network in either case. rho, rho_factor:
    the penalty and what it grows by at each update of Z and U; interval: epochs between two updates, None: a tenth of
    the second phase, as published. admm_epochs, retrain_epochs: None: as long as the first phase, as published;
    admm_lr, retrain_lr: shares of the first phase's rate; schedule: of the rate in both, as published or the recipe's.
    """

    density: float
    pattern: PatternSpec = "irregular"
    budget: BudgetSpec = "uniform"
    linear: Literal["dense", "pruned"] = "dense"
    rho: float = 1e-3
    rho_factor: float = 1.3
    interval: int | None = None
    admm_epochs: int | None = None
    retrain_epochs: int | None = None
    admm_lr: float = 0.1
    retrain_lr: float = 0.1
    schedule: Literal["published", "recipe"] = "published"

    def __post_init__(self) -> None:
        self._sparsifier(1 if self.interval is None else self.interval)
        check_epochs("method.admm_epochs", self.admm_epochs)
        check_epochs("method.retrain_epochs", self.retrain_epochs)
        check_rate("method.admm_lr", self.admm_lr)
        check_rate("method.retrain_lr", self.retrain_lr)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with lr 0.1, momentum 0.9 and coupled decay 1e-4, as published."""
        return OptimizerSpec(weight_decay=1e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return pretraining with the recipe's schedule, ADMM with a rate that starts anew, and masked retraining."""
        epochs = self.admm_epochs or base.epochs
        interval = self.interval or max(1, epochs // 10)
        pretrain = replace(base, name="pretrain")
        drawn = replace(
            base,
            name="admm",
            epochs=epochs,
            optimizer=base.optimizer.scaled(self.admm_lr),
            schedule=self._later(Sawtooth(period=interval), base),
            sparsifier=partial(self._sparsifier, interval),
            # The draw ends where W, Z and U end together; what is best is chosen of the retraining.
            select=None,
            monitors=tuple,
            start=FromState("pretrain.end"),
        )
        retrain = replace(
            base,
            name="retrain",
            epochs=self.retrain_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self.retrain_lr),
            schedule=self._later(Steps(milestones=(0.4, 0.75)), base),
            sparsifier=partial(HeldMask, contract=self._constraint().contract),
            start=FromState("admm.end"),
        )
        return (pretrain, drawn, retrain)

    def _later(self, published: Schedule, base: Phase) -> Schedule:
        return base.schedule if self.schedule == "recipe" else published

    def _constraint(self) -> Sparse:
        return constraint(self.pattern, self.budget, self.linear)

    def _sparsifier(self, interval: int) -> ADMM:
        return ADMM(
            density=self.density,
            constraint=self._constraint(),
            rho=self.rho,
            rho_factor=self.rho_factor,
            interval=Interval(interval),
        )
