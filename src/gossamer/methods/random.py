"""Random pruning at initialisation: the control that every method has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.sparsity import HardMask
from gossamer.sparsity.budgets import BudgetSpec, check_density, check_scope
from gossamer.sparsity.budgets import budget as make_budget
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Random:
    """Keep weights chosen uniformly, over the whole network or layer by layer as `budget` says, before training."""

    density: float
    scope: Literal["global", "layer"] = "layer"
    budget: BudgetSpec = "uniform"

    def __post_init__(self) -> None:
        check_density(self.density, "method.density")
        check_scope(self.scope, self.budget)
        make_budget(self.budget)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 5e-4."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase under a fixed random mask."""
        sparsifier = partial(HardMask, density=self.density, score="random", scope=self.scope, budget=self.budget)
        return (replace(base, sparsifier=sparsifier),)
