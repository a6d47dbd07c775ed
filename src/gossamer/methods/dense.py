"""Dense training: every weight kept, the parent that sparse networks are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Dense:
    """One phase, no sparsifier."""

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 5e-4."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase as it is."""
        return (base,)
