"""Random pruning at initialisation: the control that every method has to beat."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.methods.binary import BINARY_OPTIMIZER, binarised, check_binary
from gossamer.sparsity import HardMask
from gossamer.sparsity.binary_weights import Scale
from gossamer.sparsity.budgets import BudgetSpec, check_density, check_scope
from gossamer.sparsity.patterns import PatternSpec
from gossamer.sparsity.patterns import pattern as make_pattern
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Random:
    """Keep weights chosen uniformly, over the whole network or layer by layer as `budget` says, before training.

    pattern: in which shapes they are kept: the control of other methods under that pattern.
    binary: weights -1 and +1 where they are not zero, by BinaryConnect; binary_scale: `mean` multiplies them by the
    layer's mean magnitude.
    """

    density: float
    scope: Literal["global", "layer"] = "layer"
    budget: BudgetSpec = "uniform"
    pattern: PatternSpec = "irregular"
    binary: bool = False
    binary_scale: Scale = "none"

    def __post_init__(self) -> None:
        check_binary(self.binary_scale, binary=self.binary)
        check_density(self.density, "method.density")
        check_scope(self.scope, self.budget)
        make_pattern(self.pattern)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 5e-4, or BinaryConnect's Adam."""
        return BINARY_OPTIMIZER if self.binary else OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase under a fixed random mask."""
        sparsifier = partial(
            HardMask,
            density=self.density,
            score="random",
            scope=self.scope,
            budget=self.budget,
            pattern=self.pattern,
        )
        phase = replace(base, sparsifier=sparsifier)
        return (binarised(phase, self.binary_scale) if self.binary else phase,)
