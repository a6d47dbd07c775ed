"""Soft DEEP R (Bellec et al., ICLR 2018): dormant connections wander too, and come back by themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.deep_rewiring import SoftDeepRewiring
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class SoftDeepR:
    """density: share of weights that starts active, divided among the layers by `budget`; training decides what stays.

    l1: the drift of active weights to zero, sigma: the noise of all, both per unit learning rate.
    """

    density: float
    budget: BudgetSpec = "uniform"
    l1: float = 1e-5
    sigma: float = 1e-5

    def __post_init__(self) -> None:
        self._sparsifier(rate=1.0)()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return plain SGD of rate 0.05, as published: neither momentum nor decay."""
        return OptimizerSpec(lr=0.05, momentum=0.0, weight_decay=0.0)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase with the sparsifier, whose floor follows from the base learning rate."""
        return (replace(base, sparsifier=self._sparsifier(rate=base.optimizer.lr)),)

    def _sparsifier(self, *, rate: float) -> partial[SoftDeepRewiring]:
        return partial(
            SoftDeepRewiring, density=self.density, budget=self.budget, rate=rate, l1=self.l1, sigma=self.sigma
        )
