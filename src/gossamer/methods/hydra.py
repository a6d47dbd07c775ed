"""HYDRA (Sehwag et al., NeurIPS 2020): train dense, learn under the robust loss which weights to keep, fine-tune."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from gossamer.methods.binary import BINARY_OPTIMIZER, FromLatents, binarised, check_binary
from gossamer.methods.mask_search import MaskSearch
from gossamer.sparsity import HeldMask, ScoreMask
from gossamer.sparsity.binary_weights import Scale
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.patterns import PatternSpec
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Hydra(MaskSearch):
    """The phases of `gossamer.methods.mask_search`, with the recipe's objective and schedule in all of them.

    scope, budget, pattern: as in `gossamer.sparsity.ScoreMask`. Batch norms learn throughout. binary: weights -1 and +1
    where they are not zero, by BinaryConnect, in every phase; binary_scale: `mean` multiplies them by the layer's mean
    magnitude.
    """

    scope: Literal["global", "layer"] = "layer"
    budget: BudgetSpec = "uniform"
    pattern: PatternSpec = "irregular"
    binary: bool = False
    binary_scale: Scale = "none"

    def __post_init__(self) -> None:
        self._search()
        check_binary(self.binary_scale, binary=self.binary)
        super().__post_init__()

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with learning rate 0.1, momentum 0.9 and decay 1e-4, on weights and on scores, or Adam."""
        return BINARY_OPTIMIZER if self.binary else OptimizerSpec(weight_decay=1e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return pretraining, the search for a mask, and fine-tuning under it."""
        held = partial(HeldMask, contract=self._search().contract)
        pretrain, prune, finetune = self.search_phases(base, self._search, start=FromLatents, held=held)
        if not self.binary:
            return (pretrain, prune, finetune)
        searched = [binarised(phase, self.binary_scale, latent=True) for phase in (pretrain, prune)]
        return (*searched, binarised(finetune, self.binary_scale))

    def _search(self) -> ScoreMask:
        return ScoreMask(density=self.density, scope=self.scope, budget=self.budget, pattern=self.pattern)
