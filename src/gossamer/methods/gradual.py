"""Gradual magnitude pruning (Zhu & Gupta, 2017): dense at first, cut again and again while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.gradual import GradualPruning
from gossamer.sparsity.patterns import PatternSpec
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Gradual:
    """scope: `global` compares all weights, `layer` each layer's, as `budget` divides the density.

    pattern: in which shapes weights are left in the end: blocks, 2:4, ... (`gossamer.sparsity.patterns`).
    schedule: how the density falls from 1 between the shares `begin` and `end` of training; every: steps between cuts.
    """

    density: float
    scope: Literal["global", "layer"] = "global"
    budget: BudgetSpec = "uniform"
    pattern: PatternSpec = "irregular"
    schedule: str = "cubic"
    begin: float = 0.1
    end: float = 0.75
    every: int = 100

    def __post_init__(self) -> None:
        self._sparsifier()()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 5e-4."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase under gradual pruning."""
        return (replace(base, sparsifier=self._sparsifier()),)

    def _sparsifier(self) -> partial[GradualPruning]:
        return partial(
            GradualPruning,
            density=self.density,
            scope=self.scope,
            budget=self.budget,
            pattern=self.pattern,
            schedule=self.schedule,
            begin=self.begin,
            end=self.end,
            every=self.every,
        )
