"""One-shot magnitude pruning: train dense, cut the smallest weights, fine-tune what is left."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.methods.checks import check_epochs, check_rate
from gossamer.sparsity import HardMask
from gossamer.sparsity.budgets import BudgetSpec, check_density, check_scope
from gossamer.sparsity.patterns import PatternSpec
from gossamer.sparsity.patterns import pattern as make_pattern
from gossamer.sparsity.scores import scoring
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, Phase


@dataclass(frozen=True, kw_only=True)
class Magnitude:
    """Keep the weights of largest magnitude, over the whole network or layer by layer as `budget` says.

    pattern: in which shapes they are kept: single weights, blocks, 2:4, ... (`gossamer.sparsity.patterns`); score: what
    stands in for the magnitude, such as another package's "package.module:factory" (`gossamer.sparsity.scores`).
    finetune_epochs: epochs of the second phase, None for the recipe's; finetune_lr: its learning rate as a share of
    the first phase's. Both phases train with the recipe's objective and schedule. Source: Han et al., NeurIPS 2015;
    under adversarial training with layer-wise budgets (`scope: layer`): the LWM baseline of Sehwag et al., NeurIPS 2020
    (fine-tuning rate 0.01 after 0.1).
    """

    density: float
    scope: Literal["global", "layer"] = "global"
    budget: BudgetSpec = "uniform"
    pattern: PatternSpec = "irregular"
    score: str = "magnitude"
    finetune_epochs: int | None = None
    finetune_lr: float = 0.1

    def __post_init__(self) -> None:
        check_density(self.density, "method.density")
        check_scope(self.scope, self.budget)
        make_pattern(self.pattern)
        scoring(self.score)
        check_epochs("method.finetune_epochs", self.finetune_epochs)
        check_rate("method.finetune_lr", self.finetune_lr)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD with momentum 0.9 and coupled decay 1e-4, as published for the LWM baseline."""
        return OptimizerSpec(weight_decay=1e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return pretraining, and fine-tuning under a fixed mask."""
        pretrain = replace(base, name="pretrain")
        finetune = replace(
            base,
            name="finetune",
            epochs=self.finetune_epochs or base.epochs,
            optimizer=base.optimizer.scaled(self.finetune_lr),
            sparsifier=partial(
                HardMask,
                density=self.density,
                score=self.score,
                scope=self.scope,
                budget=self.budget,
                pattern=self.pattern,
            ),
            start=FromState("pretrain.end"),
        )
        return (pretrain, finetune)
