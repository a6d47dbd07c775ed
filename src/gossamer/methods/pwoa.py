"""PwoA (Jian et al., ICDM 2022): prune a robust network on clean images, with the network itself as the teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from gossamer.errors import ConfigError
from gossamer.methods.checks import check_epochs, check_rate
from gossamer.methods.robust_admm import Sawtooth, constraint
from gossamer.objectives.distillation import Distillation
from gossamer.sparsity import HeldMask
from gossamer.sparsity.budgets import BudgetSpec
from gossamer.sparsity.patterns import PatternSpec
from gossamer.sparsity.pwoa import EpochwiseADMM
from gossamer.sparsity.sets import Sparse
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import FromState, Phase
from gossamer.training.scene import Scene
from gossamer.training.schedules import Cosine
from gossamer.types import Objective

TEACHER = "pretrain.end"


@dataclass(frozen=True, kw_only=True)
class PwoA:
    """Three phases: `pretrain`, the robust teacher, by the recipe; `admm` and `finetune` on clean images, taught by it.

    density: of the whole network; pattern: irregular, column, filter, or any other; linear: linear layers stay dense,
    and convolutions share what is left, or are pruned alike; budget: what each layer keeps. distillation: weight of
    the teacher, None for the number of classes (10 and 100, as published); lambda_x, lambda_y: of the bottleneck terms
    while fine-tuning (published: 2e-5, 1e-4 for CIFAR-10; 5e-7, 2e-6 for CIFAR-100; 2e-4, 5e-5 for MNIST). rho,
    rho_factor, rho_most, update_every, restart: see `gossamer.sparsity.pwoa`. mix_ratio: share of batches attacked in
    both phases; 0 is the method proper. admm_epochs, finetune_epochs: None for half the recipe's and the recipe's;
    admm_lr, finetune_lr: shares of the recipe's rate.
    """

    density: float
    pattern: PatternSpec = "irregular"
    linear: Literal["dense", "pruned"] = "dense"
    budget: BudgetSpec = "uniform"
    distillation: float | None = None
    temperature: float = 30.0
    lambda_x: float = 2e-5
    lambda_y: float = 1e-4
    rho: float = 0.01
    rho_factor: float = 1.35
    rho_most: float = 1.0
    update_every: int = 3
    restart: bool = True
    mix_ratio: float = 0.0
    admm_epochs: int | None = None
    finetune_epochs: int | None = None
    admm_lr: float = 0.1
    finetune_lr: float = 0.05

    def __post_init__(self) -> None:
        self._draw()
        self._objective(bottleneck=True)
        check_epochs("method.admm_epochs", self.admm_epochs)
        check_epochs("method.finetune_epochs", self.finetune_epochs)
        check_rate("method.admm_lr", self.admm_lr)
        check_rate("method.finetune_lr", self.finetune_lr)

    def default_optimizer(self, objective: str) -> OptimizerSpec:
        """Return SGD: lr 0.1, momentum 0.9, coupled decay 1e-4, the published decay of both later phases."""
        return OptimizerSpec(weight_decay=1e-4)

    def phases(self, base: Phase, model: str) -> Sequence[Phase]:
        """Return pretraining, the draw towards a sparse copy, and distillation under its mask; raises ConfigError."""
        if self.mix_ratio > 0.0 and base.attack is None:
            raise ConfigError(
                "method.mix_ratio",
                expected="0 where the objective has no training attack",
                got=self.mix_ratio,
                remedy="leave it out, or choose an objective with one",
            )
        pretrain = replace(base, name="pretrain")
        taught = replace(base, equip=taught_by_itself, adapt=None, replays=1, perturbation=None)
        if self.mix_ratio == 0.0:
            taught = replace(taught, attack=None)
        admm = replace(
            taught,
            name="admm",
            epochs=self.admm_epochs or max(1, round(base.epochs / 2)),
            objective=self._objective(bottleneck=False),
            optimizer=base.optimizer.scaled(self.admm_lr),
            schedule=Sawtooth(period=self.update_every),
            sparsifier=self._draw,
            # The draw ends where W, Z and U end together; what is best is chosen of the fine-tuning.
            select=None,
            monitors=tuple,
            start=FromState(TEACHER),
        )
        finetune = replace(
            taught,
            name="finetune",
            epochs=self.finetune_epochs or base.epochs,
            objective=self._objective(bottleneck=True),
            optimizer=base.optimizer.scaled(self.finetune_lr),
            schedule=Cosine(floor=8e-6),
            sparsifier=partial(HeldMask, contract=self._constraint().contract),
            start=FromState("admm.end"),
        )
        return (pretrain, admm, finetune)

    def _objective(self, *, bottleneck: bool) -> Distillation:
        return Distillation(
            weight=self.distillation,
            temperature=self.temperature,
            lambda_x=self.lambda_x if bottleneck else 0.0,
            lambda_y=self.lambda_y if bottleneck else 0.0,
            mix_ratio=self.mix_ratio,
        )

    def _constraint(self) -> Sparse:
        return constraint(self.pattern, self.budget, self.linear)

    def _draw(self) -> EpochwiseADMM:
        return EpochwiseADMM(
            density=self.density,
            constraint=self._constraint(),
            rho=self.rho,
            rho_factor=self.rho_factor,
            most=self.rho_most,
            every=self.update_every,
            restart=self.restart,
        )


def taught_by_itself(objective: Objective, scene: Scene) -> Objective:
    """Return a distillation with the pretrained network as its teacher; anything else as it is."""
    return objective.taught_by(scene.network(TEACHER)) if isinstance(objective, Distillation) else objective
