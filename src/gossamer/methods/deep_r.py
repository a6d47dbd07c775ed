"""DEEP R (Bellec et al., ICLR 2018): plain gradient steps, noise and an l1 drift; dead connections are drawn anew."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.deep_rewiring import DeepRewiring
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class DeepR:
    """density: share of weights kept, divided among the layers by `budget`.

    scope: `global` holds the number of connections of the whole network, `local` that of every layer; l1: the drift to
    zero, sigma: the noise, both per unit learning rate, as published for MNIST.
    """

    density: float
    budget: BudgetSpec = "uniform"
    scope: Literal["global", "local"] = "global"
    l1: float = 1e-5
    sigma: float = 1e-5

    def __post_init__(self) -> None:
        self._sparsifier()()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return plain SGD of rate 0.5, as published: neither momentum nor decay."""
        return OptimizerSpec(lr=0.5, momentum=0.0, weight_decay=0.0)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase with the rewiring sparsifier."""
        return (replace(base, sparsifier=self._sparsifier()),)

    def _sparsifier(self) -> partial[DeepRewiring]:
        return partial(
            DeepRewiring, density=self.density, budget=self.budget, scope=self.scope, l1=self.l1, sigma=self.sigma
        )
