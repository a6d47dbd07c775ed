"""edge-popup (Ramanujan et al., CVPR 2020): the weights stay as drawn, and training finds the subnetwork to keep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.sparsity import ScoreMask
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class EdgePopup:
    """One search for a subnetwork of frozen, random weights, with the recipe's objective.

    The fields are those of `gossamer.sparsity.ScoreMask`, with the published values as defaults. Batch norm has
    neither scale nor shift, so that scores are all that learns.
    """

    density: float
    scope: Literal["global", "layer"] = "layer"
    budget: BudgetSpec = "uniform"
    weights: Literal["plain", "binary", "signed-constant", "scaled-signed-constant"] = "signed-constant"
    scores: Literal["kaiming-uniform", "uniform", "from-weights"] = "kaiming-uniform"
    bound: float = 0.01
    batch_norm: Literal["plain", "learn"] = "plain"

    def __post_init__(self) -> None:
        self.search(self.density)()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with learning rate 0.1, momentum 0.9 and decay 5e-4 on the scores."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase, learning scores instead of weights."""
        return (replace(base, sparsifier=self.search(self.density)),)

    def search(self, density: float) -> partial[ScoreMask]:
        """Return what makes the sparsifier of a search at a density; calling it raises ConfigError for bad fields."""
        return partial(
            ScoreMask,
            density=density,
            scope=self.scope,
            budget=self.budget,
            weights=self.weights,
            scores=self.scores,
            bound=self.bound,
            batch_norm=self.batch_norm,
        )
