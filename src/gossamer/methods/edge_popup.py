"""edge-popup (Ramanujan et al., CVPR 2020): the weights stay as drawn, and training finds the subnetwork to keep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.errors import ConfigError
from gossamer.methods.sharpness import check_sharpness, with_sharpness
from gossamer.sparsity import ScoreMask
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.patterns import PatternSpec
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class EdgePopup:
    """One search for a subnetwork of frozen, random weights, with the recipe's objective.

    The fields are those of `gossamer.sparsity.ScoreMask`, with the published values as defaults. Batch norm has
    neither scale nor shift, so that scores are all that learns. score_sharpness, sharpness_warmup: the search takes
    its steps at perturbed scores (S2AP), as in `gossamer.methods.sharpness`.
    """

    density: float
    scope: Literal["global", "layer"] = "layer"
    budget: BudgetSpec = "uniform"
    pattern: PatternSpec = "irregular"
    weights: Literal["plain", "binary", "signed-constant", "scaled-signed-constant"] = "signed-constant"
    scores: Literal["kaiming-uniform", "uniform", "from-weights"] = "kaiming-uniform"
    bound: float = 0.01
    batch_norm: Literal["plain", "learn"] = "plain"
    score_sharpness: float = 0.0
    sharpness_warmup: int | None = None

    def __post_init__(self) -> None:
        self.search(self.density)()
        check_sharpness(self.score_sharpness, self.sharpness_warmup)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with learning rate 0.1, momentum 0.9 and decay 5e-4 on the scores."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase, learning scores instead of weights; raises ConfigError for two perturbations."""
        self.refuse_two_perturbations(base)
        return (self.searching(base, self.density),)

    def searching(self, base: Phase, density: float) -> Phase:
        """Return a phase that searches at a density; where scores are perturbed, weights are not."""
        search = replace(base, sparsifier=self.search(density))
        if self.score_sharpness == 0.0:
            return search
        return with_sharpness(search, self.score_sharpness, self.sharpness_warmup)

    def refuse_two_perturbations(self, base: Phase) -> None:
        """Raise ConfigError where the recipe perturbs weights, and every phase perturbs scores in their place."""
        if self.score_sharpness > 0.0 and base.perturbation is not None:
            raise ConfigError(
                "method.score_sharpness",
                expected="0 beside training.weight_perturbation, where no phase trains weights",
                got=self.score_sharpness,
                remedy="leave out one of the two",
            )

    def search(self, density: float) -> partial[ScoreMask]:
        """Return what makes the sparsifier of a search at a density; calling it raises ConfigError for bad fields."""
        return partial(
            ScoreMask,
            density=density,
            scope=self.scope,
            budget=self.budget,
            pattern=self.pattern,
            weights=self.weights,
            scores=self.scores,
            bound=self.bound,
            batch_norm=self.batch_norm,
        )
