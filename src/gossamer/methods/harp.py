"""HARP (Zhao & Wressnegger, ICLR 2023): pretrain, learn rates and scores of all layers at once, fine-tune."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from gossamer.errors import ConfigError
from gossamer.methods.mask_search import MaskSearch
from gossamer.sparsity import HeldMask
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.harp import Learn, RateSearch
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class HARP(MaskSearch):
    """Learn how many weights each layer keeps, and which, by straight-through gradients under one budget.

    learn: both; scores, with rates fixed as `budget` divides the density (HYDRA); or rates, with scores fixed at
    magnitudes. floor: least rate of a layer as a share of the density; gamma: weight of the budget loss in the first
    epoch, growing by itself every epoch; initial_density, budget: where the rates start (0.1 in every layer; the
    density itself where that is larger); decay_rates: weight decay acts on the rates too; rate_clip, tolerance: see
    the sparsifier; the rest: see `gossamer.methods.mask_search`.
    """

    learn: Learn = "both"
    budget: BudgetSpec = "uniform"
    initial_density: float | None = None
    floor: float = 0.1
    gamma: float = 0.01
    decay_rates: bool = True
    rate_clip: float | None = 0.1
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        self._search()
        super().__post_init__()
        if self.learn == "rates" and self.score_sharpness > 0.0:
            raise ConfigError(
                "method.score_sharpness",
                expected="0 where scores do not learn",
                got=self.score_sharpness,
                remedy="leave it out, or write learn: both",
            )

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD: lr 0.1, momentum 0.9, coupled decay 5e-4, as published, on scores and rates too."""
        return OptimizerSpec()

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return pretraining, the search, and fine-tuning under the masks it found."""
        held = partial(HeldMask, contract="at-most")
        pretrain, search, finetune = self.search_phases(base, self._search, held=held)
        # An earlier state of the search may hold more weights than the budget, so that the last one is taken.
        return (pretrain, replace(search, average=None, monitors=tuple, select=None), finetune)

    def _search(self) -> RateSearch:
        return RateSearch(
            density=self.density,
            floor=self.floor,
            gamma=self.gamma,
            initial_density=self.initial_density,
            budget=self.budget,
            learn=self.learn,
            decay_rates=self.decay_rates,
            rate_clip=self.rate_clip,
            tolerance=self.tolerance,
        )
