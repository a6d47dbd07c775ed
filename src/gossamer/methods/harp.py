"""HARP (Zhao & Wressnegger, ICLR 2023): pretrain, learn rates and scores of all layers at once, fine-tune."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs, check_rate
from gossamer.methods.sharpness import check_sharpness, with_sharpness
from gossamer.sparsity import HeldMask
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.harp import Learn, RateSearch
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, Phase


@dataclass(frozen=True, kw_only=True)
class HARP:
    """Learn how many weights each layer keeps, and which, by straight-through gradients under one budget.

    learn: both; scores, with rates fixed as `budget` divides the density (HYDRA); or rates, with scores fixed at
    magnitudes. floor: least rate of a layer as a share of the density; gamma: weight of the budget loss in the first
    epoch, growing by itself every epoch; initial_density, budget: where the rates start (0.1 in every layer; the
    density itself where that is larger); decay_rates: weight decay acts on the rates too; rate_clip, tolerance: see
    the sparsifier. prune_epochs: of the search, by default a fifth of the recipe's (published: 20 of 100);
    finetune_epochs: by default the recipe's; prune_lr, finetune_lr: rates as shares of the recipe's.
    score_sharpness, sharpness_warmup: see `gossamer.methods.sharpness`.
    """

    density: float
    learn: Learn = "both"
    budget: BudgetSpec = "uniform"
    initial_density: float | None = None
    floor: float = 0.1
    gamma: float = 0.01
    decay_rates: bool = True
    rate_clip: float | None = 0.1
    tolerance: float = 0.05
    prune_epochs: int | None = None
    finetune_epochs: int | None = None
    prune_lr: float = 1.0
    finetune_lr: float = 0.1
    score_sharpness: float = 0.0
    sharpness_warmup: int | None = None

    def __post_init__(self) -> None:
        self._search()
        check_epochs("method.prune_epochs", self.prune_epochs)
        check_epochs("method.finetune_epochs", self.finetune_epochs)
        check_rate("method.prune_lr", self.prune_lr)
        check_rate("method.finetune_lr", self.finetune_lr)
        check_sharpness(self.score_sharpness, self.sharpness_warmup)
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
        rate = base.optimizer.lr
        pretrain = replace(base, name="pretrain")
        # An earlier state of the search may hold more weights than the budget, so that the last one is taken.
        search = replace(
            base,
            name="prune",
            epochs=self.prune_epochs or max(1, round(base.epochs / 5)),
            optimizer=replace(base.optimizer, lr=rate * self.prune_lr),
            sparsifier=self._search,
            start=FromState("pretrain.end"),
            average=None,
            monitors=tuple,
            select=None,
        )
        finetune = replace(
            base,
            name="finetune",
            epochs=self.finetune_epochs or base.epochs,
            optimizer=replace(base.optimizer, lr=rate * self.finetune_lr),
            sparsifier=partial(HeldMask, contract="at-most"),
            start=FromState("prune.end"),
        )
        return (pretrain, with_sharpness(search, self.score_sharpness, self.sharpness_warmup), finetune)

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
