"""What a method is: options, and the phases that make a network robust and sparse."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@runtime_checkable
class Method(Protocol):
    """A published method as values: each of its phases is the recipe's phase with some fields replaced."""

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return the published optimiser for a named objective, used where the recipe names none."""
        ...

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the phases in order; base: the recipe's own phase; model: the network's name, or user's factory."""
        ...
