"""HYDRA (Sehwag et al., NeurIPS 2020): train dense, learn under the robust loss which weights to keep, fine-tune."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gossamer.methods.binary import BINARY_OPTIMIZER, FromLatents, binarised, check_binary
from gossamer.methods.checks import check_epochs, check_rate
from gossamer.methods.sharpness import check_sharpness, with_sharpness
from gossamer.sparsity import HeldMask, ScoreMask
from gossamer.sparsity.binary_weights import Scale
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Hydra:
    """Three phases with the recipe's objective and schedule: `pretrain` weights, `prune` by scores, `finetune`.

    scope, budget: as in `gossamer.sparsity.ScoreMask`. prune_epochs: None for a fifth of the recipe's epochs, as
    published (20 of 100); finetune_epochs: None for the recipe's. prune_lr, finetune_lr: learning rates as shares of
    the first phase's. Batch norms learn throughout. binary: weights -1 and +1 where they are not zero, by
    BinaryConnect, in every phase; binary_scale: `mean` multiplies them by the layer's mean magnitude. score_sharpness,
    sharpness_warmup: the search takes its steps at perturbed scores (S2AP), as in `gossamer.methods.sharpness`.
    """

    density: float
    scope: Literal["global", "layer"] = "layer"
    budget: BudgetSpec = "uniform"
    prune_epochs: int | None = None
    prune_lr: float = 1.0
    finetune_epochs: int | None = None
    finetune_lr: float = 0.1
    binary: bool = False
    binary_scale: Scale = "none"
    score_sharpness: float = 0.0
    sharpness_warmup: int | None = None

    def __post_init__(self) -> None:
        self._search()
        check_binary(self.binary_scale, binary=self.binary)
        check_sharpness(self.score_sharpness, self.sharpness_warmup)
        check_epochs("method.prune_epochs", self.prune_epochs)
        check_epochs("method.finetune_epochs", self.finetune_epochs)
        check_rate("method.prune_lr", self.prune_lr)
        check_rate("method.finetune_lr", self.finetune_lr)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with learning rate 0.1, momentum 0.9 and decay 1e-4, on weights and on scores, or Adam."""
        return BINARY_OPTIMIZER if self.binary else OptimizerSpec(weight_decay=1e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return pretraining, the search for a mask, and fine-tuning under it."""
        pretrain = replace(base, name="pretrain")
        prune = replace(
            base,
            name="prune",
            epochs=self.prune_epochs or max(1, round(base.epochs / 5)),
            optimizer=base.optimizer.scaled(self.prune_lr),
            sparsifier=self._search,
            start=FromLatents("pretrain.end"),
        )
        prune = with_sharpness(prune, self.score_sharpness, self.sharpness_warmup)
        finetune = replace(
            base,
            name="finetune",
            epochs=self.finetune_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self.finetune_lr),
            sparsifier=HeldMask,
            start=FromLatents("prune.end"),
        )
        if not self.binary:
            return (pretrain, prune, finetune)
        searched = [binarised(phase, self.binary_scale, latent=True) for phase in (pretrain, prune)]
        return (*searched, binarised(finetune, self.binary_scale))

    def _search(self) -> ScoreMask:
        return ScoreMask(density=self.density, scope=self.scope, budget=self.budget)
