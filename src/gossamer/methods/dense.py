"""Dense training: every weight kept, the parent that sparse networks are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

from gossamer.methods.binary import BINARY_OPTIMIZER, binarised, check_binary
from gossamer.sparsity.binary_weights import Scale
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Dense:
    """One phase, no sparsifier.

    binary: weights -1 and +1, by BinaryConnect; binary_scale: `mean` multiplies them by the layer's mean magnitude.
    """

    binary: bool = False
    binary_scale: Scale = "none"

    def __post_init__(self) -> None:
        check_binary(self.binary_scale, binary=self.binary)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 5e-4, or BinaryConnect's Adam."""
        return BINARY_OPTIMIZER if self.binary else OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return the recipe's phase as it is, or with binary weights."""
        return (binarised(base, self.binary_scale) if self.binary else base,)
