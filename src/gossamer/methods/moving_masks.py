"""What SET and RigL share: one phase whose masks drop small weights and grow others, every so many steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.dynamic_mask import DynamicMask
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class MovingMasks:
    """density: share of weights kept, divided among the layers by `budget`.

    every: steps between updates, None for once an epoch; death_rate, final_rate: the share of a layer's weights that
    an update replaces, falling from one to the other in half a cosine; until: share of training in which masks move.
    """

    density: float
    budget: BudgetSpec = "erk"
    every: int | None = None
    death_rate: float = 0.3
    final_rate: float = 0.0
    until: float = 0.75

    growth: ClassVar[str]

    def __post_init__(self) -> None:
        self._sparsifier()()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 5e-4."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase under moving masks."""
        return (replace(base, sparsifier=self._sparsifier()),)

    def _sparsifier(self) -> partial[DynamicMask]:
        return partial(
            DynamicMask,
            density=self.density,
            budget=self.budget,
            growth=self.growth,
            every=self.every,
            death_rate=self.death_rate,
            final_rate=self.final_rate,
            until=self.until,
        )
